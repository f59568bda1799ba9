"""Vectors to codes and back."""

import numpy as np
import pytest
import torch

from cramzip import quantize
from cramzip.errors import DamagedFileError


def test_codes_survive_packing():
    mem = torch.randn(3, 8) * 10
    packed = quantize.pack(quantize.quantize(mem))
    assert len(packed) == quantize.packed_size(3, 8)
    codes = quantize.unpack(packed, 3, 8)
    torch.testing.assert_close(quantize.dequantize(codes), mem, rtol=1e-3, atol=1e-4)


def test_round_trip_is_what_storage_does():
    mem = torch.randn(5, 7) * 3
    stored = quantize.dequantize(quantize.quantize(mem))
    assert torch.equal(quantize.round_trip(mem), stored)


def test_gradients_pass_straight_through_the_round_trip():
    mem = torch.randn(4, requires_grad=True)
    (quantize.round_trip(mem) * torch.arange(4)).sum().backward()
    assert mem.grad.tolist() == [0, 1, 2, 3]


def test_values_beyond_the_range_are_clamped():
    stored = quantize.dequantize(quantize.quantize(torch.tensor([[1e9, -1e9]])))
    assert stored.tolist() == [[65504, -65504]]


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_a_value_that_is_not_finite_is_damage(value):
    data = np.array([1, value, 2], dtype="<f2").tobytes()
    with pytest.raises(DamagedFileError, match="vectors"):
        quantize.unpack(data, 1, 3)
