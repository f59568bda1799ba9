"""The spelling of gzip, zstd and xz is understood."""

import shutil
import subprocess
import sys

import pytest
from models import ROOT

from cramzip.app.cli import commands
from cramzip.app.spelling import TAKES_VALUE, VERBS, with_command

TEXT = (ROOT / "examples" / "texts" / "lighthouse.txt").read_bytes()[:200]


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (["-d", "a.cram"], ["decompress", "a.cram"]),
        (["-dc", "a.cram"], ["decompress", "-c", "a.cram"]),
        (["-c", "-d", "a.cram"], ["decompress", "-c", "a.cram"]),
        (["-D", "sample", "-d", "a.cram"], ["decompress", "-D", "sample", "a.cram"]),
        (["--dictionary", "sample", "-t", "a.cram"], ["test", "--dictionary", "sample", "a.cram"]),
        (["--codebook", "my.mem", "-d", "a.cram"], ["decompress", "--codebook", "my.mem", "a.cram"]),
        (["--memlimit", "1G", "-t", "a.cram"], ["test", "--memlimit", "1G", "a.cram"]),
        (["-fd", "-"], ["decompress", "-f", "-"]),
        (["-Dsample", "a"], ["compress", "-Dsample", "a"]),
        (["-oout", "a"], ["compress", "-oout", "a"]),
        (["-mdata/tiny", "a"], ["compress", "-mdata/tiny", "a"]),
        (["-dfoout", "a.cram"], ["decompress", "-foout", "a.cram"]),
        (["-do", "tz", "a.cram"], ["decompress", "-o", "tz", "a.cram"]),
        (["-fo", "-d", "-t", "a.cram"], ["test", "-fo", "-d", "a.cram"]),
        (["--device", "cpu", "-d", "a.cram"], ["decompress", "--device", "cpu", "a.cram"]),
        (["-T2", "-d", "a.cram"], ["decompress", "-T2", "a.cram"]),
        (["--decompress", "-f", "a.cram"], ["decompress", "-f", "a.cram"]),
        (["-t", "a.cram", "b.cram"], ["test", "a.cram", "b.cram"]),
        (["-l", "-v", "a.cram"], ["list", "-v", "a.cram"]),
        (["-z", "a"], ["compress", "a"]),
        (["-9", "a"], ["compress", "-9", "a"]),
        (["-9kf", "--", "-d"], ["compress", "-9kf", "--", "-d"]),
        (["--smallest", "a"], ["compress", "--smallest", "a"]),
        (["c", "-d"], ["c", "-d"]),
        (["d", "-f", "a.cram"], ["d", "-f", "a.cram"]),
        (["--version"], ["--version"]),
        (["-h"], ["-h"]),
        (["-"], ["-"]),
        (["nonsense"], ["nonsense"]),
    ],
    ids=str,
)
def test_options_stand_for_commands(given, meant):
    assert with_command(given) == meant


@pytest.mark.parametrize("command", sorted(set(VERBS.values()) - {"compress"}))
def test_every_option_with_a_value_may_stand_before_the_option_for_a_command(command):
    options = [one for one in commands.commands[command].params if one.param_type_name == "option"]
    assert {name for one in options if not (one.is_flag or one.count) for name in one.opts} <= TAKES_VALUE


def test_files_are_compressed_tested_listed_and_restored_as_with_zstd(cramzip, folder):
    (folder / "a.txt").write_bytes(TEXT)
    assert cramzip("-9", "a.txt").exit_code == 0
    assert cramzip("-t", "-T", "1", "a.cram").exit_code == 0
    assert "a.cram" in cramzip("-l", "a.cram").stdout
    assert cramzip("-dc", "a.cram").stdout_bytes == TEXT


def run(*arguments, data=b""):
    return subprocess.run([sys.executable, "-m", "cramzip", *arguments], input=data, capture_output=True)


def test_without_arguments_a_pipe_is_compressed():
    packed = run(data=TEXT)
    assert packed.returncode == 0
    assert run("-d", data=packed.stdout).stdout == TEXT


@pytest.mark.skipif(not shutil.which("tar"), reason="needs tar")
def test_tar_packs_and_unpacks_with_it(folder):
    (folder / "docs").mkdir()
    for name in ("one.txt", "two.txt"):
        (folder / "docs" / name).write_bytes(TEXT)
    program = folder / "cramzip"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m cramzip "$@"\n')
    program.chmod(0o755)
    tar = ["tar", "-I", str(program)]
    subprocess.run(
        [*tar, "-cf", "docs.tar.cram", "docs"], check=True, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    )
    shutil.rmtree(folder / "docs")
    subprocess.run([*tar, "-xf", "docs.tar.cram"], check=True, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"})
    assert (folder / "docs" / "two.txt").read_bytes() == TEXT
