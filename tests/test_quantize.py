"""Vectors to codes and back."""

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cramzip.coding import quantize
from cramzip.container.records import Coding, coding_of
from cramzip.container.vectors import AT_ONCE, QuantizedMem, check, pack
from cramzip.container.vectors import unpack as unpack_checked
from cramzip.errors import DamagedFileError, UsageError

ROTATED = [coding for coding in Coding if coding is not Coding.FLOAT16]

patiently = settings(max_examples=50, deadline=None)
codings = pytest.mark.parametrize("coding", Coding, ids=lambda coding: coding.name)
rotated = pytest.mark.parametrize("coding", ROTATED, ids=lambda coding: coding.name)


def unpack(data, n_vectors, width, coding):
    """The codes of bytes out of a file."""
    check(data, width, coding)
    return unpack_checked(data, n_vectors, width, coding)


def vectors(n_vectors, width, seed=0):
    return torch.randn(n_vectors, width, generator=torch.Generator().manual_seed(seed))


def codes_of(coding, n_vectors, width, seed):
    """Any that the coding has."""
    draw = np.random.default_rng(seed)
    if coding is Coding.FLOAT16:
        codes = draw.normal(size=(n_vectors, width)).astype("<f2").view("<u2")
        return QuantizedMem(coding, codes, np.zeros(n_vectors, np.uint8))
    codes = draw.integers(coding.levels, size=(n_vectors, width)).astype(np.uint8)
    return QuantizedMem(coding, codes, draw.integers(256, size=n_vectors).astype(np.uint8))


def refused(data, width, coding):
    with pytest.raises(DamagedFileError) as caught:
        unpack(bytes(data), 1, width, coding)
    return caught.value.stage == "vectors"


@codings
@patiently
@given(st.integers(1, 4), st.integers(1, 40), st.integers(0, 1000))
def test_codes_survive_packing(coding, n_vectors, width, seed):
    mem = codes_of(coding, n_vectors, width, seed)
    packed = pack(mem)
    assert len(packed) == n_vectors * coding.vector_size(width)
    found = unpack(packed, n_vectors, width, coding)
    assert found.coding is coding
    assert np.array_equal(found.codes, mem.codes)
    assert np.array_equal(found.scales, mem.scales)


@pytest.mark.parametrize(
    ("coding", "size"), list(zip(Coding, (1 + 32, 1 + 52, 1 + 64, 1 + 96, 1 + 128, 1 + 256, 512), strict=True))
)
def test_a_vector_of_256_dimensions_has_the_size_that_its_bits_say(coding, size):
    assert coding.vector_size(256) == size


def test_users_name_codings_by_their_bits():
    assert [coding_of(bits) for bits in ("1", "1.58", "2", "3", "4", "8", "16")] == list(Coding)
    with pytest.raises(UsageError, match="expected one of"):
        coding_of("5")


@patiently
@given(st.integers(1, 12), st.binary(min_size=1, max_size=13), st.sampled_from(list(Coding)))
def test_only_what_pack_writes_is_read(width, data, coding):
    data = data[: coding.vector_size(width)].ljust(coding.vector_size(width), b"\0")
    try:
        mem = unpack(data, 1, width, coding)
    except DamagedFileError:
        return
    assert pack(mem) == data
    if coding is not Coding.FLOAT16:
        assert mem.codes.max() < coding.levels


def test_a_ternary_byte_beyond_five_codes_is_damage():
    assert unpack(b"\x80\xf2", 1, 5, Coding.TERNARY).codes.tolist() == [[2, 2, 2, 2, 2]]
    assert refused(b"\x80\xf3", 5, Coding.TERNARY)


@pytest.mark.parametrize(
    ("coding", "width", "last"),
    [
        (Coding.SIGNS, 9, 0b10),
        (Coding.TERNARY, 6, 3),
        (Coding.TWO_BITS, 5, 0b100),
        (Coding.THREE_BITS, 3, 0b10),
        (Coding.FOUR_BITS, 1, 0x10),
    ],
)
def test_filling_that_is_not_zero_is_damage(coding, width, last):
    data = bytearray(coding.vector_size(width))
    assert not unpack(bytes(data), 1, width, coding).codes.any()
    data[-1] = last
    assert refused(data, width, coding)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_a_value_that_is_not_finite_is_damage(value):
    assert refused(np.array([1, value, 2], dtype="<f2").tobytes(), 3, Coding.FLOAT16)


@codings
def test_round_trip_is_what_storage_does(coding):
    mem = vectors(5, 48) * 3
    codes = quantize.quantize(mem, coding)
    packed = pack(codes)
    stored = quantize.dequantize(unpack(packed, 5, 48, coding))
    torch.testing.assert_close(quantize.round_trip(mem, coding), stored, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(quantize.dequantize(codes), stored, rtol=0, atol=0)


@codings
def test_gradients_pass_straight_through_the_round_trip(coding):
    mem = vectors(1, 4).requires_grad_()
    (quantize.round_trip(mem, coding) * torch.arange(4)).sum().backward()
    assert mem.grad.tolist() == [[0, 1, 2, 3]]


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_the_error_falls_with_every_bit(scale):
    mem = vectors(20, 256) * scale
    errors = [float((quantize.round_trip(mem, coding) - mem).std() / scale) for coding in Coding]
    assert errors == sorted(errors, reverse=True)
    # the best that 2, 3, 4, 8 and 16 equally spaced levels can do for a normal distribution (Max 1960)
    for error, best in zip(errors[:5], (0.603, 0.436, 0.345, 0.194, 0.107), strict=True):
        assert 0.98 * best < error < 1.05 * best
    assert errors[5] < 0.012
    assert errors[6] < 0.001


@rotated
def test_one_large_dimension_does_not_spoil_the_others(coding):
    mem = vectors(20, 256)
    plain = float((quantize.round_trip(mem, coding) - mem).std() / mem.std())
    mem[:, 3] += 20
    assert float((quantize.round_trip(mem, coding) - mem).std() / mem.std()) < 1.3 * plain


@pytest.mark.parametrize("width", [1, 2, 7, 64, 257])
def test_the_rotation_is_orthogonal(width):
    matrix = quantize.rotation(width).astype(np.float64)
    assert np.abs(matrix @ matrix.T - np.eye(width)).max() < 1e-6


def test_the_rotation_is_a_cosine_transform_of_signs():
    width = 5
    matrix = quantize.rotation(width)
    signs = np.sign(matrix[0])
    for frequency in range(width):
        wave = np.cos(np.pi / width * frequency * (np.arange(width) + 0.5))
        np.testing.assert_allclose(matrix[frequency], signs * wave / np.linalg.norm(wave), atol=1e-7)


@rotated
def test_lengths_beyond_the_largest_scale_are_clamped(coding):
    mem = 1e9 * vectors(1, 64)
    codes = quantize.quantize(mem, coding)
    assert codes.scales.tolist() == [255]
    assert quantize.dequantize(codes).abs().max() < 1e6


def test_values_beyond_the_range_of_float16_are_clamped():
    stored = quantize.dequantize(quantize.quantize(torch.tensor([[1e9, -1e9]]), Coding.FLOAT16))
    assert stored.tolist() == [[65504, -65504]]


@codings
def test_zeros_stay_small(coding):
    stored = quantize.dequantize(quantize.quantize(torch.zeros(2, 8), coding))
    assert stored.abs().max() < 1e-4


def test_the_examples_of_the_specification():
    ternary = QuantizedMem(Coding.TERNARY, np.array([[0, 1, 2, 1, 0, 2, 2]], np.uint8), np.array([120], np.uint8))
    assert pack(ternary) == bytes.fromhex("783008")
    expected = [[-0.060609, 0.315912, 0.153602, -0.990766, 0.264305, -0.205209, -0.171312]]
    torch.testing.assert_close(quantize.dequantize(ternary), torch.tensor(expected), rtol=0, atol=1e-6)
    three_bits = QuantizedMem(Coding.THREE_BITS, np.array([[1, 6, 7, 0, 5, 2, 3]], np.uint8), np.array([128], np.uint8))
    assert pack(three_bits) == bytes.fromhex("80f1510d")


def memory_of(work):
    """The most bytes that `work` had at a time."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@codings
def test_unpacking_takes_little_more_memory_than_its_codes(coding):
    n_vectors, width = 64, 2**14
    packed = pack(codes_of(coding, n_vectors, width, 0))
    result = n_vectors * width * (2 if coding is Coding.FLOAT16 else 1)
    assert memory_of(lambda: unpack(packed, n_vectors, width, coding)) < 2 * result + 16 * AT_ONCE


@rotated
def test_vectors_of_a_great_width_take_no_memory_of_its_square(coding):
    mem = codes_of(coding, 1, 2**14, 0)
    assert memory_of(lambda: quantize.dequantize(mem)) < 200 * 2**14


@pytest.mark.parametrize("width", [1, 2, 3, 7, 16, 97, 576, 1000])
def test_turning_back_undoes_the_rotation(width):
    mem = np.random.default_rng(width).normal(size=(5, width))
    matrix = quantize.rotation(width).astype(np.float64)
    np.testing.assert_allclose(quantize.turn_back(mem @ matrix.T), mem, rtol=0, atol=1e-5)


def test_vectors_come_out_the_same_alone_and_with_many_others():
    mem = codes_of(Coding.TWO_BITS, 700, 576, 0)
    together = quantize.dequantize(mem)
    for row in (0, 454, 455, 456, 699):
        alone = quantize.dequantize(QuantizedMem(mem.coding, mem.codes[row : row + 1], mem.scales[row : row + 1]))
        assert torch.equal(alone[0], together[row])


def test_the_rotation_goes_to_a_device_once(monkeypatch):
    copies, from_numpy = [], torch.from_numpy
    monkeypatch.setattr(torch, "from_numpy", lambda array: copies.append(array.shape) or from_numpy(array))
    mem = torch.randn(2, 28, generator=torch.Generator().manual_seed(0))
    for _ in range(5):
        quantize.round_trip(mem, Coding.SIGNS)
    assert copies == [(28, 28)]
