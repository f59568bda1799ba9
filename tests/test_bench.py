import json
import shutil
import subprocess

import pytest
from models import TINY_MODEL

from cramzip import bench
from cramzip.bench import CRAMZIP, RIVALS, Measurement, totals

TEXTS = {"cat.txt": b"the cat sat on the mat.\n", "empty": b"", "zeros": bytes(5000)}


@pytest.fixture(scope="module")
def measurements():
    from cramzip.cram import CramConfig
    from cramzip.lm import load

    return bench.bench(TEXTS.items(), load(str(TINY_MODEL)), CramConfig(effort=1))


def test_every_codec_measures_every_text(measurements):
    assert [(one.file, one.codec) for one in measurements] == [
        (file, codec) for file in TEXTS for codec in (CRAMZIP, *RIVALS)
    ]


def test_all_are_exact_and_take_time(measurements):
    for one in measurements:
        assert one.exact
        assert one.original_bytes == len(TEXTS[one.file])
        assert one.compressed_bytes > 0
        assert one.compress_seconds > 0
        assert one.decompress_seconds > 0


def test_the_entropy_bound_is_that_of_cramzip_alone(measurements):
    for one in measurements:
        assert (one.entropy_bound is not None) == (one.codec == CRAMZIP)
    cat = measurements[0]
    assert 0 < cat.bound_share < 1


def test_nothing_is_printed(capsys, measurements):
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("codec", "command"),
    [
        ("gzip -9", ["gzip", "-9n"]),
        ("bzip2 -9", ["bzip2", "-9"]),
        ("zstd --ultra -22", ["zstd", "--ultra", "-22", "-q"]),
        ("brotli -q 11", ["brotli", "-q", "11"]),
        ("xz -9e", ["xz", "-9e"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_rivals_are_at_least_as_strong_as_their_command_lines(codec, command):
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    data = b"".join(b"%d squared is %d.\n" % (n, n * n) for n in range(1000))
    theirs = subprocess.run([*command, "-c"], input=data, capture_output=True, check=True).stdout
    assert len(RIVALS[codec][0](data)) <= len(theirs) + 8


def test_a_codec_that_lies_is_found_out(monkeypatch):
    from cramzip.cram import CramConfig
    from cramzip.lm import load

    monkeypatch.setitem(RIVALS, "gzip -9", (RIVALS["gzip -9"][0], lambda blob: b"something else"))
    found = bench.bench([("zeros", bytes(100))], load(str(TINY_MODEL)), CramConfig(effort=1))
    assert [one.codec for one in found if not one.exact] == ["gzip -9"]


def test_measures_of_a_hand_computed_case():
    one = Measurement("a", CRAMZIP, 1000, 250, 2.0, 1.0, exact=True, entropy_bound=1500.0)
    assert one.ratio == 4
    assert one.bits_per_byte == 2
    assert one.bound_share == 0.75


def test_totals_add_up_sizes_times_and_bounds():
    one = Measurement("a", CRAMZIP, 1000, 250, 2.0, 1.0, exact=True, entropy_bound=1500.0)
    two = Measurement("b", CRAMZIP, 3000, 750, 4.0, 3.0, exact=False, entropy_bound=500.0)
    rival = Measurement("a", "gzip -9", 1000, 400, 0.1, 0.1, exact=True)
    assert totals([one, rival, two]) == [
        Measurement("total", CRAMZIP, 4000, 1000, 6.0, 4.0, exact=False, entropy_bound=2000.0),
        Measurement("total", "gzip -9", 1000, 400, 0.1, 0.1, exact=True),
    ]


def test_the_table_shows_codecs_bound_and_model(cramzip, folder):
    for name, content in TEXTS.items():
        (folder / name).write_bytes(content)
    result = cramzip("bench", "-m", TINY_MODEL, "-1", *TEXTS)
    assert (result.exit_code, result.stderr) == (0, "")
    for shown in (*RIVALS, CRAMZIP, "(entropy bound)", "total", "local:model", "42,200 bytes", "Bits/byte", "B/s"):
        assert shown in result.stdout


def test_json_is_one_document_with_all_it_takes_to_judge_it(cramzip, folder):
    (folder / "cat.txt").write_bytes(TEXTS["cat.txt"])
    result = cramzip("bench", "--json", "-m", TINY_MODEL, "-1", "cat.txt")
    assert (result.exit_code, result.stderr) == (0, "")
    document = json.loads(result.stdout, parse_constant=pytest.fail)
    assert set(document) == {"versions", "machine", "model", "config", "measurements"}
    assert document["config"]["effort"] == 1
    ours = document["measurements"][0]
    assert ours["codec"] == CRAMZIP
    assert ours["entropy_bound_share"] == pytest.approx(ours["entropy_bound_bits"] / 8 / ours["compressed_bytes"])
    assert ours["parts"]["n_chunks"] > 0
