"""The tables, the roundings and the modules that exact arithmetic is made of."""

import ast
import subprocess
import sys
from decimal import Decimal, getcontext
from pathlib import Path

import numpy as np
import pytest

from cramzip.errors import ModelError
from cramzip.exact import arithmetic, rotations
from cramzip.exact.arithmetic import levels, powers, sigmoids, to_integers
from cramzip.exact.run import MOST_LANES

ROOM = Path(arithmetic.__file__).parent
SPECIFICATION = ROOM.parent.parent / "formats" / "exact.md"


def nearest(value):
    return int(value.to_integral_value("ROUND_HALF_UP"))


def test_powers_are_rounded_right():
    getcontext().prec = 50
    root = Decimal(2) ** (Decimal(-1) / 256)
    assert [nearest(2**24 * root**k) for k in range(0, 6400, 37)] == powers()[:6400:37].tolist()
    assert powers()[-1] == 0
    assert len(powers()) == 6401


def test_sigmoids_are_rounded_right():
    getcontext().prec = 50
    values = [Decimal(k - 2048) / 128 for k in range(0, 4097, 31)]
    assert [nearest(2**24 / (1 + (-x).exp())) for x in values] == (sigmoids()[::31] * 2**24).tolist()
    assert len(sigmoids()) == 4097


def test_cosines_are_rounded_right():
    table = rotations.Rotations(10000)
    for position in (0, 1, 700, 1023, 1024, 40000, 65535):
        angles = [int(rotations._ONE * (position * 10000.0 ** (-i / 32))) / rotations._ONE for i in range(32)]
        cosines, sines = table.at(position, 1)
        assert np.abs(cosines[0] - np.cos(angles)).max() * 2**14 < 0.5001
        assert np.abs(sines[0] - np.sin(angles)).max() * 2**14 < 0.5001


def test_pages_of_cosines_follow_each_other():
    table = rotations.Rotations(10000)
    first = [table.at(position, 1)[0].tobytes() for position in (1023, 1024, 5000)]
    assert [table.at(position, 1)[0].tobytes() for position in (1023, 1024, 5000)] == first
    assert len(table._pages) == 2


def test_positions_beyond_the_table_are_refused():
    with pytest.raises(ModelError, match="65536 positions"):
        rotations.Rotations(10000).at(65536, 1)


@pytest.mark.parametrize("name", ["powers", "sigmoids"])
def test_a_table_that_comes_out_wrong_is_an_error(name, monkeypatch):
    monkeypatch.setattr(arithmetic, f"_{name.upper()}_HASH", "0" * 64)
    with pytest.raises(ModelError, match="table"):
        getattr(arithmetic, name).__wrapped__()


def test_cosines_that_come_out_wrong_are_an_error(monkeypatch):
    monkeypatch.setattr(rotations, "RESOLUTION", 2.0**13)
    with pytest.raises(ModelError, match="cosines"):
        rotations.Rotations(10000)


def test_tables_cannot_be_written_to():
    with pytest.raises(ValueError, match="read-only"):
        powers()[0] = 1


@pytest.mark.parametrize("most", [127, 412, 2064])
def test_the_largest_of_a_row_becomes_the_largest_integer(most):
    x = np.random.default_rng(0).standard_normal((200, 33)).astype(np.float32)
    integers, scale = to_integers(x, np.float32(most))
    assert (np.abs(integers).max(axis=1) == most).all()
    assert (integers == np.rint(integers)).all()
    assert (np.abs(integers * scale - x) <= scale * 0.5001).all()


@pytest.mark.parametrize("value", [0.0, 1e-45, 1e-38, 3e38])
def test_rows_of_any_size_become_finite_integers(value):
    integers, scale = to_integers(np.full((1, 4), value, np.float32), np.float32(127))
    assert np.isfinite(integers).all()
    assert np.isfinite(scale).all()


def test_levels_keep_sums_below_what_float32_holds():
    for n_terms in range(1, 1041):
        assert levels(n_terms) >= 127
        assert levels(n_terms) * 127 * n_terms < 2**24
        assert levels(n_terms) * MOST_LANES < 2**24
    assert levels(1041) < 127


def test_the_specification_names_the_hash_of_every_table():
    text = SPECIFICATION.read_text()
    hashes = [arithmetic._POWERS_HASH, arithmetic._SIGMOIDS_HASH, *rotations._FIRST_PAGE_HASHES.values()]
    assert all(found in text for found in hashes)


def test_the_room_knows_nothing_but_errors_a_carry_and_itself():
    for path in ROOM.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert node.level < 2 or node.module in ("errors", "rangecoder"), path
            if isinstance(node, ast.Import):
                assert {alias.name for alias in node.names} <= {"numpy", "numpy.typing", "ctypes", "hashlib", "json"}, (
                    path
                )


def test_importing_the_room_loads_neither_torch_nor_transformers():
    code = "import sys, cramzip.exact.lanes, cramzip.exact.probe\nprint(*sys.modules)"
    finished = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert not {"torch", "transformers", "safetensors"} & set(finished.stdout.split())
