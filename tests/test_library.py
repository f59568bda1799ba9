"""The library says at once what it cannot do, and takes what is clear."""

import array
import ast
import copy
import pickle
import tomllib

import numpy as np
import pytest
from models import PROSE, ROOT, TINY_MODEL

import cramzip
from cramzip import CramConfig
from cramzip.errors import UsageError
from cramzip.lm.frozen import FrozenLM

FAST = CramConfig(vectors=0)


@pytest.fixture(scope="module")
def lm():
    return FrozenLM.load(TINY_MODEL)


class Untouchable:
    """A model that nobody may ask for anything."""

    def __getattr__(self, name):
        pytest.fail(f"the model was asked for {name}")


@pytest.mark.parametrize("name", ["a/b", "", "x" * 300, "..", "a\nb", "\udce9"], ids=ascii)
def test_a_name_that_no_header_holds_is_refused_before_any_work(name):
    with pytest.raises(UsageError, match="name: must"):
        cramzip.compress(PROSE, Untouchable(), FAST, name=name)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"lm": "gpt2"}, "lm: expected a model"),
        ({"lm": FAST}, "lm: expected a model"),
        ({"config": {"effort": 9}}, "config: expected a CramConfig"),
        ({"lm": Untouchable(), "config": 9}, "config: expected a CramConfig"),
    ],
)
def test_what_is_no_model_or_no_configuration_is_told_at_once(given, message, folder):
    with pytest.raises(UsageError, match=message):
        cramzip.compress(PROSE, **given)
    with pytest.raises(UsageError, match=message):
        cramzip.open("a.cram", "wb", **given)
    assert not list(folder.iterdir())
    if "config" not in given:
        with pytest.raises(UsageError, match=message):
            cramzip.decompress(b"", **given)


def test_a_model_may_be_named_by_a_path():
    assert cramzip.load(TINY_MODEL).model_id == cramzip.load(str(TINY_MODEL)).model_id


@pytest.mark.parametrize("data", ["text", None, 7, [1, 2]], ids=ascii)
def test_what_is_no_buffer_is_refused_before_any_work(data):
    with pytest.raises(UsageError, match="expected bytes, found"):
        cramzip.compress(data, Untouchable(), FAST)


@pytest.mark.parametrize(
    "data",
    [
        bytearray(PROSE[:80]),
        memoryview(array.array("I", range(40))),
        np.arange(60, dtype=np.float64).reshape(3, 20),
        memoryview(PROSE)[::2],
        np.zeros((0, 3)),
    ],
    ids=["bytearray", "items of four bytes", "rows of eight", "every second byte", "nothing"],
)
def test_any_buffer_is_compressed_as_its_bytes(lm, data):
    assert cramzip.decompress(cramzip.compress(data, lm, FAST), lm) == memoryview(data).tobytes()


def test_files_may_be_views_of_any_kind(lm):
    blob = cramzip.compress(PROSE * 2, lm, FAST)
    padded = blob + bytes(-len(blob) % 4)
    assert cramzip.decompress(memoryview(bytearray(blob)), lm) == PROSE * 2
    assert cramzip.read(memoryview(padded).cast("I").cast("B")[: len(blob)]).header.original_size == 2 * len(PROSE)


@pytest.mark.parametrize(
    "options",
    [
        {"vectors": 1.5},
        {"vectors": "1"},
        {"effort": 2.0},
        {"effort": 0},
        {"batch_size": 0},
        {"seed": -1},
        {"learning_rate": 0},
        {"learning_rate": -1.0},
        {"learning_rate": float("nan")},
        {"learning_rate": float("inf")},
        {"learning_rate": "fast"},
        {"origin": (0.0, float("nan"))},
        {"origin": ("a",)},
        {"bits": 5},
        {"bits": "two"},
        {"bits": float("nan")},
        {"dtype": "float64"},
        {"exact": True, "vectors": 0},
        {"exact": True, "context": 16},
        {"exact": True, "chunk_tokens": 24},
    ],
    ids=str,
)
def test_a_configuration_that_makes_no_sense_is_a_usage_error(options):
    with pytest.raises(UsageError, match=next(iter(options))):
        CramConfig(**options)


def test_numbers_whose_meaning_is_clear_are_taken():
    assert CramConfig(bits=2) == CramConfig(bits="2")
    assert CramConfig(bits=1.58) == CramConfig(bits="1.58")
    assert CramConfig(vectors=np.int64(2)).vectors == 2
    assert type(CramConfig(vectors=np.int64(2)).vectors) is int
    assert CramConfig(origin=[1, 2]).origin == (1.0, 2.0)
    assert CramConfig(exact=True, context=0).context == 0


@pytest.mark.parametrize(
    "error",
    [
        cramzip.DamagedFileError("header", "nothing is left"),
        cramzip.MissingModelError("some/model"),
        cramzip.MissingModelError("some/model", "config.json"),
        *(
            kind("what is the matter")
            for kind in (cramzip.UsageError, cramzip.WrongModelError, cramzip.VerificationError)
        ),
    ],
    ids=repr,
)
def test_errors_survive_the_way_from_one_process_to_another(error):
    """What cannot be unpickled breaks a pool of processes, and all work that waits in it."""
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(other) is type(error)
        assert (str(other), vars(other), other.exit_code) == (str(error), vars(error), error.exit_code)


def test_no_more_is_decoded_than_was_asked_for(lm):
    data = bytes(5000)
    blob = cramzip.compress(data, lm, FAST)
    assert cramzip.decompress(blob, max_size=5000) == data
    assert cramzip.decompress(blob, start=10, stop=20, max_size=10) == bytes(10)
    for part in ({}, {"start": 1}, {"start": 10, "stop": 5000}):
        with pytest.raises(UsageError, match="max_size"):
            cramzip.decompress(blob, max_size=4989, **part)


@pytest.mark.parametrize("part", [{"start": -1}, {"stop": -1}, {"start": 91}], ids=str)
def test_a_part_that_is_not_in_the_file_is_a_usage_error(lm, part):
    with pytest.raises(UsageError, match="is not in a file of 90 bytes"):
        cramzip.decompress(cramzip.compress(bytes(90), lm, FAST), lm, **part)


def test_the_example_uses_every_public_name_and_is_checked_strictly():
    """`make lint` lets mypy read it as a program that knows nothing but types."""
    program = ast.parse((ROOT / "examples" / "library.py").read_text(encoding="utf-8"))
    used = {node.attr for node in ast.walk(program) if isinstance(node, ast.Attribute)}
    assert used >= set(cramzip.__all__)
    checked = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mypy"]
    assert checked["strict"]
    assert "examples/library.py" in checked["files"]
