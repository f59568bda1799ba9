"""Corrections to bytes and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cramzip import corrections
from cramzip.errors import DamagedFileError

FIXES = st.dictionaries(st.integers(0, 299), st.integers(0, 49151), max_size=40)


@given(FIXES)
def test_what_is_packed_comes_back(fixes):
    packed = corrections.pack(fixes)
    assert corrections.unpack(packed, 300, 49152) == fixes
    assert corrections.count(packed) == len(fixes)


@given(FIXES, st.data())
def test_every_truncation_is_found(fixes, data):
    packed = corrections.pack(fixes)
    end = data.draw(st.integers(0, len(packed) - 1))
    with pytest.raises(DamagedFileError):
        corrections.unpack(packed[:end], 300, 49152)


@given(st.binary(max_size=30))
def test_only_what_pack_writes_is_read(data):
    try:
        fixes = corrections.unpack(data, 20, 500)
    except DamagedFileError:
        return
    assert corrections.pack(fixes) == data


def test_the_example_of_the_specification():
    assert corrections.pack({0: 7, 5: 300}) == bytes.fromhex("020007 04ac02")
