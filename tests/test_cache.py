"""A cache with room to grow: the same logits as with the one of transformers."""

import pytest
import torch
from models import ARCHITECTURES, TINY_MODEL, make_model
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from cramzip.lm.frozen import FrozenLM
from cramzip.lm.speed import cache
from cramzip.lm.speed.cache import RoomyLayer, with_room

LENGTH, FIRST = 30, 5  # tokens in all, more than the sliding windows of some models; and how many at first


@pytest.fixture(params=sorted(ARCHITECTURES), scope="module")
def model(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    make_model(request.param, folder)
    return FrozenLM.load(folder)


@pytest.fixture(scope="module")
def tiny():
    return FrozenLM.load(TINY_MODEL)


def keys_and_values(n, rows=2, heads=3, width=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, rows, heads, n, width, generator=generator).unbind(0)


def begun(n):
    layer = DynamicLayer()
    layer.update(*keys_and_values(n))
    return layer


def logits_of_all_steps(lm, first, n_at_once=1):
    inputs = lm.embed(torch.arange(2 * LENGTH).reshape(2, LENGTH) + 5)
    last, state = lm.step(inputs[:, :first])
    steps = [last]
    for n in range(first, LENGTH, n_at_once):
        last, state = lm.step(inputs[:, n : n + n_at_once], state)
        steps.append(last)
    return torch.stack(steps, 1), state


@pytest.mark.parametrize(("room", "first"), [(1, FIRST), (3, 1), (256, FIRST)])
def test_every_architecture_says_the_same_as_with_the_plain_cache(model, monkeypatch, room, first):
    monkeypatch.setattr(cache, "ROOM", room)
    roomy, _ = logits_of_all_steps(model, first)
    monkeypatch.setattr("cramzip.lm.frozen.with_room", lambda plain: plain)
    plain, _ = logits_of_all_steps(model, first)
    torch.testing.assert_close(roomy, plain, rtol=0, atol=1e-4)


def test_several_tokens_at_once_are_added_like_one_by_one(tiny, monkeypatch):
    monkeypatch.setattr(cache, "ROOM", 2)
    roomy, _ = logits_of_all_steps(tiny, 2, n_at_once=7)
    monkeypatch.setattr("cramzip.lm.frozen.with_room", lambda plain: plain)
    plain, _ = logits_of_all_steps(tiny, 2, n_at_once=7)
    torch.testing.assert_close(roomy, plain, rtol=0, atol=1e-4)


def test_the_layers_of_the_tiny_model_have_room(tiny):
    _, state = logits_of_all_steps(tiny, FIRST)
    assert {type(layer) for layer in state.layers} == {RoomyLayer}
    assert {layer.get_seq_length() for layer in state.layers} == {LENGTH}


@pytest.mark.parametrize("room", [1, 4])
def test_a_layer_holds_all_that_it_was_given(monkeypatch, room):
    monkeypatch.setattr(cache, "ROOM", room)
    plain, roomy = begun(3), RoomyLayer(begun(3))
    for seed, n in enumerate([1, 1, 5, 1, 30, 1], start=1):
        expected = plain.update(*keys_and_values(n, seed=seed))
        found = roomy.update(*keys_and_values(n, seed=seed))
        for before, after in zip(expected, found, strict=True):
            assert torch.equal(before, after)


def test_within_its_room_a_layer_is_not_copied(monkeypatch):
    monkeypatch.setattr(cache, "ROOM", 20)
    layer = RoomyLayer(begun(3))
    keys, values = layer.update(*keys_and_values(1, seed=1))
    for seed in range(2, 20):
        later_keys, later_values = layer.update(*keys_and_values(1, seed=seed))
        assert later_keys.data_ptr() == keys.data_ptr()
        assert later_values.data_ptr() == values.data_ptr()


def test_what_the_model_computed_first_is_not_written_over():
    plain = begun(3)
    keys = plain.keys
    before = keys.clone()
    RoomyLayer(plain).update(*keys_and_values(4, seed=1))
    assert torch.equal(keys, before)


def test_a_layer_that_is_not_a_plain_one_stays_as_it_is():
    state = DynamicCache()
    sliding, empty = DynamicSlidingWindowLayer(sliding_window=4), DynamicLayer()
    sliding.update(*keys_and_values(3))
    state.layers = [sliding, begun(3), empty]
    assert with_room(state) is state
    assert state.layers[0] is sliding
    assert type(state.layers[1]) is RoomyLayer
    assert state.layers[2] is empty


def test_a_cache_without_layers_stays_as_it_is():
    state = object()
    assert with_room(state) is state
