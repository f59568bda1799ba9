"""Where a file is cut."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cramzip.coding.chunking import cut, is_inside_character, looks_like_text, next_segment, prior_capacity
from cramzip.container.wire import MAX_GROUP_SIZE

LINES = [f"It was a dark and stormy night — number {i * i * 7919} of {i**3}.\n" for i in range(400)]
TEXT = "".join(LINES).encode()

TOKENS = st.lists(st.binary(min_size=1, max_size=4), min_size=1, max_size=60)


@given(TOKENS, st.integers(1, 9), st.floats(0.5, 40), st.data())
def test_chunks_cover_all_tokens_in_order_within_the_limits(contents, max_tokens, capacity, data):
    costs = np.array(data.draw(st.lists(st.floats(0, 20), min_size=len(contents), max_size=len(contents))))
    chunks = cut(contents, costs, capacity, max_tokens, max_bytes=20)
    assert [t for chunk in chunks for t in range(chunk.start, chunk.stop)] == list(range(len(contents)))
    for chunk in chunks:
        assert 1 <= chunk.stop - chunk.start <= max_tokens
        assert sum(map(len, contents[chunk])) <= 20


def test_a_chunk_costs_no_more_than_the_vectors_hold():
    costs = np.random.default_rng(0).uniform(0, 8, 500)
    chunks = cut([b"x"] * 500, costs, 100.0, 4096, 2**22)
    assert max(costs[chunk].sum() for chunk in chunks) <= 100.01
    assert min(costs[chunk].sum() for chunk in chunks[:-1]) > 80


def test_cheap_text_is_cut_into_longer_chunks():
    costs = np.array([1.0] * 300 + [10.0] * 300)
    lengths = [chunk.stop - chunk.start for chunk in cut([b"x"] * 600, costs, 60.0, 4096, 2**22)]
    assert lengths[0] > 5 * lengths[-2]


def test_a_character_of_several_tokens_is_not_cut():
    contents = [bytes([value]) for value in "👩🏽‍🚀é".encode() * 20]
    data = b"".join(contents)
    for chunk in cut(contents, np.ones(len(contents)), 7.0, 4096, 2**22):
        assert not is_inside_character(data, chunk.start)


def test_a_chunk_that_has_all_the_tokens_it_may_ends_before_a_character_begun():
    contents = [bytes([value]) for value in "aé".encode() * 3]  # a, two bytes of é, ...
    chunks = cut(contents, np.zeros(9), 1.0, max_tokens=5, max_bytes=2**22)
    assert chunks == [slice(0, 4), slice(4, 9)]


def test_a_single_token_may_cost_more_than_the_capacity():
    assert cut([b"a", b"b"], np.array([50.0, 50.0]), 10.0, 4096, 2**22) == [slice(0, 1), slice(1, 2)]


@given(st.integers(1000, 5000))
def test_text_segments_end_after_a_line(size):
    end, is_text = next_segment(TEXT, 0, size)
    assert is_text
    assert end <= size
    assert TEXT[end - 1 : end] in (b"\n", b" ")


def test_text_without_spaces_is_cut_between_characters():
    data = "".join(chr(0x4E00 + i * i * 31 % 5000) for i in range(3000)).encode()
    end, is_text = next_segment(data, 0, 4000)
    assert is_text
    assert end % 3 == 0


def test_random_bytes_zeros_and_control_characters_are_not_text():
    assert not looks_like_text(np.random.default_rng(0).bytes(4000))
    assert not looks_like_text(bytes(100_000))
    assert not looks_like_text(b"\x01\x02text")
    assert looks_like_text(TEXT)


def test_what_terminals_are_sent_is_text():
    log = "".join(
        f"\x1b[32mINFO\x1b[0m \x1b[2m12:00:{i % 60:02}\x1b[22m step {i * i} \x1b]8;;http://a.org/{i}\alink\x1b]8;;\a\r\n"
        for i in range(60)
    )
    assert looks_like_text(log.encode())
    struck = "".join(f"{character}\b{character}" for line in LINES[:40] for character in line)
    assert looks_like_text(struck.encode())
    assert not looks_like_text(bytes(range(32)) * 9 + bytes(np.random.default_rng(0).integers(0, 256, 2000).tolist()))


def test_other_data_goes_into_large_segments_up_to_the_limit_of_the_format():
    assert next_segment(bytes(3 * MAX_GROUP_SIZE), 0, 4096) == (MAX_GROUP_SIZE, False)


def test_other_data_ends_where_text_begins():
    data = np.random.default_rng(0).bytes(2**17) + TEXT
    assert next_segment(data, 0, 4096) == (2**17, False)


def test_capacities_of_the_papers_models_are_the_published_ones():
    assert round(prior_capacity(2048, 128256, 16) * np.log(2), 1) == 2119.9
    assert prior_capacity(100, 1000, 2) > 0
