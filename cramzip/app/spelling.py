"""The spelling of gzip, zstd and xz: `cramzip -d book.cram`, `cramzip -9 book.txt`, `tar -I cramzip`."""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Sequence
from typing import TextIO

VERBS = {"z": "compress", "d": "decompress", "t": "test", "l": "list"}
LONG = {f"--{verb}": verb for verb in VERBS.values()} | {"--uncompress": "decompress"}
TAKES_VALUE = frozenset(  # what often stands before a verb
    (
        *("-T", "-j", "-o", "-m", "-D", "-M", "--threads", "--jobs", "--output", "--model", "--dictionary"),
        *("--codebook", "--memory", "--memlimit", "--device", "--batch-size", "--ray"),
    )
)
SPELLINGS = {  # what to say of options that other compressors have
    "-0": "Levels are -1 (fastest) to -9 (smallest).",
    "-e": "-9 makes the smallest file.",
    "--extreme": "-9 makes the smallest file.",
    "--ultra": "-9 makes the smallest file.",
    "--long": "A file is always seen as a whole, so there is nothing to set.",
    "-b": "The command is called bench.",
    "-n": "The option is called --no-name.",
    "-N": "The option is called --name.",
    "-S": "-o names the output.",
    "--suffix": "-o names the output.",
    "-F": "-o names the output, and there is one format.",
    "--format": "There is one format.",
    "-C": "Checksums are always there.",
    "--check": "Checksums are always there.",
    "--no-check": "Checksums are always there.",
    "-H": "The option is called -h.",
    "--robot": "The option is called --json.",
    "--files": "xargs passes names from a file.",
    "--filelist": "xargs passes names from a file.",
    "--exclude-compressed": ".cram files are left out anyway.",
    "--output-dir-flat": "-o names the output of one file.",
}
OF_ALL_COMMANDS = ("-h", "--help", "-V", "--version")
SHORT_OPTIONS = re.compile(r"-([0-9A-CE-LN-SU-Za-iklnp-z]*)((?:[DMTjmo].*)?)")  # the last one may have a value


def with_command(arguments: Sequence[str]) -> list[str]:
    """The arguments with a command in front: the one that an option stands for, else `compress` if there are options.

    Without arguments: `compress` between pipes, which is what `tar -I` asks for.
    """
    if not arguments:
        return ["compress"] if _is_between_pipes(sys.stdin, sys.stdout) else []
    if not arguments[0].startswith("-") or arguments[0] in OF_ALL_COMMANDS or arguments[0] == "-":
        return list(arguments)
    command: str | None = None
    rest: list[str] = []
    is_value = False
    for index, argument in enumerate(arguments):
        if is_value:
            rest.append(argument)
            is_value = False
            continue
        letters = SHORT_OPTIONS.fullmatch(argument)
        is_value = argument in TAKES_VALUE or (letters is not None and len(letters[2]) == 1)
        if argument == "--" or not argument.startswith("-") or argument == "-":
            rest += arguments[index:]
            break
        verb = next((VERBS[letter] for letter in letters[1] if letter in VERBS), None) if letters else None
        if argument in LONG:
            command = LONG[argument]
        elif letters and verb:
            command = verb
            if others := re.sub(f"[{''.join(VERBS)}]", "", letters[1]) + letters[2]:
                rest.append(f"-{others}")
        else:
            rest.append(argument)
    return [command or "compress", *rest]


def _is_between_pipes(stdin: TextIO | None, stdout: TextIO | None) -> bool:
    """Whether data comes from a pipe or a file, and what comes out is not for a terminal."""
    try:
        if stdin is None or stdout is None or stdout.isatty():
            return False
        mode = os.fstat(stdin.fileno()).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)
