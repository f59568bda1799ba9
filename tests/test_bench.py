import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from models import ROOT, TINY_MODEL, recital

from cramzip.app import bench
from cramzip.app.bench import CRAMZIP, Measurement, config_of, settings_for, totals
from cramzip.app.rivals import RIVALS
from cramzip.config import CramConfig

MESSAGE = (
    b"Dear all,\n\nthe meeting is moved to Thursday at ten. Please bring the figures of last week.\n\nBest wishes\n"
)
OURS = {"default": "cramzip", "smallest": "cramzip --smallest", "exact": "cramzip --exact"}
PPMD = "ppmd -o6"
CONFIG = CramConfig(vectors=1, effort=1)
pytestmark = pytest.mark.usefixtures("short_runs")


@pytest.fixture(scope="module")
def lm():
    from cramzip.lm.models import load

    return load(str(TINY_MODEL))


@pytest.fixture(scope="module")
def texts(lm):
    return {"recital": recital(lm, 150), "empty": b"", "zeros": bytes(5000)}


@pytest.fixture(scope="module")
def measurements(lm, texts, short_runs):
    return bench.bench(texts.items(), lm, CONFIG)


def test_every_codec_measures_every_text_and_vectors_alone_the_small_ones(texts, measurements):
    assert [(one.file, one.codec) for one in measurements] == [
        (file, codec)
        for file, content in texts.items()
        for codec in (*OURS.values(), *RIVALS)
        if codec != OURS["exact"] or len(content) <= 4096
    ]


def test_all_are_exact_and_take_time(texts, measurements):
    for one in measurements:
        assert one.intact
        assert one.original_bytes == len(texts[one.file])
        assert one.compressed_bytes > 0
        assert one.compress_seconds > 0
        assert one.decompress_seconds > 0


def test_setting_bound_and_parts_are_those_of_cramzip_alone(measurements):
    for one in measurements:
        assert OURS.get(one.setting, one.codec) == one.codec
        is_ours = one.codec.startswith(CRAMZIP)
        assert [one.setting is not None, one.entropy_bound is not None, one.parts is not None] == 3 * [is_ours]
    assert all(0 < one.bound_share < 1 for one in measurements[:3])


def test_each_setting_is_what_the_option_of_that_name_makes(measurements):
    default, smallest, exact = (one.parts.header for one in measurements[:3])
    assert default.vectors is not None
    assert smallest.vectors is None
    assert len(smallest.original_hash) == 4 < len(default.original_hash)
    assert measurements[2].parts.correction_bytes == 0
    assert exact.vectors.coding is CramConfig(exact=True).coding
    assert {default.name, smallest.name, exact.name} == {None}


@pytest.mark.parametrize(
    ("size", "wanted", "expected"),
    [
        (4096, (), ("default", "smallest", "exact")),
        (4097, (), ("default", "smallest")),
        (4097, ("exact",), ("exact",)),
        (0, ("smallest",), ("smallest",)),
    ],
)
def test_settings_suit_the_size_unless_they_are_chosen(size, wanted, expected):
    assert tuple(settings_for(size, wanted)) == expected


def test_settings_keep_what_else_was_chosen():
    config = CramConfig(vectors=3, effort=2, bits="4", context=10, seed=7)
    assert config_of("default", config) == config
    assert config_of("smallest", config) == CramConfig(vectors=0, effort=2, bits="4", context=10, seed=7)
    assert config_of("exact", config) == CramConfig(vectors=3, effort=2, bits="4", exact=True, seed=7)
    assert config_of("exact", CramConfig(vectors=0)).vectors == 1


def test_nothing_is_printed(capsys, measurements):
    assert capsys.readouterr() == ("", "")


# -- rivals ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rival", RIVALS)
@pytest.mark.parametrize(
    "content",
    [b"", b"x", b"the cat sat on the mat.\n", bytes(2**20), random.Random(0).randbytes(2**17)],
    ids=["empty", "one byte", "text", "zeros", "noise"],
)
def test_every_rival_restores(rival, content):
    compress, decompress, _ = RIVALS[rival]
    assert decompress(compress(content)) == content


@pytest.mark.parametrize("content", [b"", b"x", random.Random(0).randbytes(2**17)], ids=["empty", "one byte", "noise"])
def test_ppmd_stores_what_it_cannot_compress(content):
    assert len(RIVALS[PPMD][0](content)) <= len(content) + 3


@pytest.mark.parametrize(
    ("codec", "command"),
    [
        ("gzip -9", ["gzip", "-9n"]),
        ("bzip2 -9", ["bzip2", "-9"]),
        ("zstd -19", ["zstd", "-19", "-q"]),
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


def decompresses_to_something_else(blob):
    return b"something else"


def fails(blob):
    raise ValueError("corrupted input data")


@pytest.mark.parametrize("decompress", [decompresses_to_something_else, fails])
def test_a_codec_that_lies_is_found_out(cramzip, folder, monkeypatch, decompress):
    monkeypatch.setitem(RIVALS, "gzip -9", RIVALS["gzip -9"]._replace(decompress=decompress))
    (folder / "zeros").write_bytes(bytes(100))
    result = cramzip("bench", "-m", TINY_MODEL, "--settings", "default", "zeros")
    assert result.exit_code == 0
    assert "gzip -9: NOT EXACT" in result.stdout
    assert result.stdout.count("NOT EXACT") == 1


def test_rivals_that_are_not_installed_are_left_out_and_named(cramzip, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "brotli", None)
    monkeypatch.setitem(sys.modules, "pyppmd", None)
    (folder / "zeros").write_bytes(bytes(100))
    result = cramzip("bench", "-m", TINY_MODEL, "--settings", "smallest", "--json", "zeros")
    assert result.exit_code == 0
    record = json.loads(result.stdout)
    measured = [one["codec"] for one in record["measurements"]]
    assert measured == [OURS["smallest"], "gzip -9", "bzip2 -9", "zstd -19", "xz -9e"]
    assert not {"brotli", "pyppmd"} & set(record["versions"])
    assert result.stderr == "not installed, so not measured: brotli -q 11, ppmd -o6; pip install 'cramzip[bench]'\n"


# -- figures ---------------------------------------------------------------------------------------


def test_measures_of_a_hand_computed_case():
    one = Measurement("a", CRAMZIP, 1000, 250, 2.0, 1.0, intact=True, entropy_bound=1500.0)
    assert one.ratio == 4
    assert one.bits_per_byte == 2
    assert one.bound_share == 0.75


def test_totals_add_up_sizes_times_and_bounds():
    one = Measurement("a", CRAMZIP, 1000, 250, 2.0, 1.0, intact=True, setting="default", entropy_bound=1500.0)
    two = Measurement("b", CRAMZIP, 3000, 750, 4.0, 3.0, intact=False, setting="default", entropy_bound=500.0)
    rivals = [Measurement(file, "gzip -9", 1000, 400, 0.5, 0.25, intact=True) for file in "ab"]
    assert totals([one, *rivals, two]) == [
        Measurement("total", CRAMZIP, 4000, 1000, 6.0, 4.0, intact=False, setting="default", entropy_bound=2000.0),
        Measurement("total", "gzip -9", 2000, 800, 1.0, 0.5, intact=True),
    ]


def test_totals_add_up_what_vectors_cost_and_saved_as_far_as_it_is_known():
    def one(file, spent, saved):
        return Measurement(file, CRAMZIP, 1000, 250, 2.0, 1.0, True, "default", None, spent, saved)

    (total,) = totals([one("a", 8.0, 20.0), one("b", None, None), one("c", 5.0, None)])
    assert (total.spent, total.saved) == (13.0, 20.0)


def test_there_is_no_total_of_what_was_not_measured_everywhere():
    files = [Measurement(file, "gzip -9", 1000, 400, 0.5, 0.25, intact=True) for file in "ab"]
    exact = Measurement("a", OURS["exact"], 1000, 400, 0.5, 0.25, intact=True, setting="exact")
    assert [one.codec for one in totals([*files, exact])] == ["gzip -9"]


# -- what users see --------------------------------------------------------------------------------


def run(cramzip, folder, texts, *options):
    for name, content in texts.items():
        (folder / name).write_bytes(content)
    return cramzip("bench", "-m", TINY_MODEL, "-1", *options, *texts)


def test_the_table_shows_settings_rivals_and_model(cramzip, folder, lm):
    result = run(cramzip, folder, {"zeros": bytes(3000), "empty": b""})
    assert result.exit_code == 0
    for shown in (
        *RIVALS,
        *OURS.values(),
        "total",
        "Of bound",
        "local:model",
        f"{lm.weight_bytes:,} bytes",
        "B/s",
        "%",
    ):
        assert shown in result.stdout


def test_what_is_not_measured_is_said(cramzip, folder):
    texts = {"zeros": bytes(4097), "empty": b""}
    told = run(cramzip, folder, texts).stderr
    assert told == (
        "1 text of more than 4,096 bytes: not measured with --exact, which takes long (--settings exact does it)\n"
    )
    assert run(cramzip, folder, texts, "-q").stderr == ""
    assert run(cramzip, folder, texts, "--settings", "default").stderr == ""


@pytest.mark.parametrize(
    "options",
    [
        ("--settings", "exact,smallest"),
        ("--settings", "smallest", "--settings", "exact"),
        ("--settings", "exact, smallest"),
    ],
    ids=" ".join,
)
def test_settings_can_be_chosen(cramzip, folder, options):
    document = json.loads(run(cramzip, folder, {"empty": b""}, "--json", *options).stdout)
    assert [one["setting"] for one in document["measurements"] if one["setting"]] == ["smallest", "exact"]
    assert list(document["settings"]) == ["smallest", "exact"]


def test_what_vectors_cost_and_saved_is_shown_where_there_are_any(cramzip, folder):
    Path("a.txt").write_bytes((ROOT / "examples" / "texts" / "brief.txt").read_bytes())
    arguments = ("bench", "a.txt", "--settings", "smallest")
    (measured, *rivals) = json.loads(cramzip(*arguments, "--json").stdout)["measurements"]
    assert measured["parts"]["codebook"]["spent"] == measured["vector_bits_spent"] < measured["vector_bits_saved"]
    assert all(one["vector_bits_spent"] is one["vector_bits_saved"] is None for one in rivals)
    shown = cramzip(*arguments).stdout
    assert f"{measured['vector_bits_spent']:,.0f}/{measured['vector_bits_saved']:,.0f}" in shown
    assert "spent/saved: bits" in shown
    assert "Spent/saved" not in cramzip(*arguments, "--no-codebook").stdout


def test_json_is_one_document_with_all_it_takes_to_judge_it(cramzip, folder, texts):
    result = run(cramzip, folder, {"recital": texts["recital"]}, "--json", "--ranks")
    assert (result.exit_code, result.stderr) == (0, "")
    document = json.loads(result.stdout, parse_constant=pytest.fail)
    assert set(document) == {"versions", "machine", "model", "settings", "measurements"}
    assert {setting: config["effort"] for setting, config in document["settings"].items()} == dict.fromkeys(OURS, 1)
    for one, (setting, codec) in zip(document["measurements"], OURS.items(), strict=False):
        assert (one["codec"], one["setting"]) == (codec, setting)
        assert one["entropy_bound_share"] == pytest.approx(one["entropy_bound_bits"] / 8 / one["compressed_bytes"])
        assert one["parts"]["file_size"] == one["compressed_bytes"]
        assert one["parts"]["n_modelled"] > 0
    assert {"bits_spent", "bits_gained", "bits_balance"} < set(document["measurements"][0]["parts"]["vectors"])
