"""Bytes to chunks: what is worth showing to the model, and where to cut it.

Without corrections, a chunk is cut where its cost under the frozen model (bits) reaches what its vectors can hold, not
after a number of tokens. Knows nothing of vectors but that number.
"""

from __future__ import annotations

import bz2
from collections.abc import Sequence

import numpy as np

from ..container.wire import MAX_GROUP_SIZE, Bytes
from ..filters.double_byte import double_byte_encoding
from ..filters.encodings import has_blanks_like_text, wide_encoding
from .packed import packed_format

SAMPLE = 2**16  # bytes looked at to tell text from other data
MAX_CONTROL_SHARE = 0.05
RARE_CONTROL = 200  # bytes for a control character, at least, in a text that is no UTF-8
HIGHLY_REDUNDANT = 40.0  # ratio of bzip2, the same in all its versions, from which a model has nothing to add
MIN_REDUNDANT = 1024  # bytes

# A long text is tried at a few places first: where zstd is better at all of them, the model has nothing to add.
PROBE_PLACES = (1 / 2, 1 / 6, 5 / 6)
PROBE_TOKENS = 512
WORTH_PROBING = 4 * len(PROBE_PLACES) * PROBE_TOKENS  # tokens: a shorter text is done sooner without a try
HOPELESS = 1.05  # bits under the model for a bit of zstd, beyond which it is given up; corrections cost some more

# Exact capacities of one vector in bits: published information gains (nats, PG-19) of Kuratov et
# al. 2025, table 1, by (width, vocabulary, layers) of the model, over log 2.
_NATS_PER_VECTOR = {
    (768, 50304, 12): 396.4,  # Pythia-160M
    (1024, 50304, 24): 431.4,  # Pythia-410M
    (2048, 50304, 24): 792.8,  # Pythia-1.4B
    (2048, 128256, 16): 2119.9,  # Llama-3.2-1B
    (3072, 128256, 28): 3292.2,  # Llama-3.2-3B
    (4096, 128256, 32): 4865.7,  # Llama-3.1-8B
}
BITS_PER_DIMENSION = 0.2  # of models that nobody has measured; every run corrects it soon

_OF_TEXT = b"\t\n\v\f\r" + b"\a\b\x1b"  # the latter are sent to terminals: bells, overstrikes, colours
_CONTROL = bytes(value for value in (*range(32), 127) if value not in _OF_TEXT)


def prior_capacity(width: int, vocabulary_size: int, n_layers: int) -> float:
    """Bits that one vector of a model may be expected to hold before anything has been tried."""
    nats = _NATS_PER_VECTOR.get((width, vocabulary_size, n_layers))
    return nats / float(np.log(2)) if nats else BITS_PER_DIMENSION * width


def looks_like_text(sample: Bytes) -> bool:
    """Whether a language model could have anything to say about these bytes."""
    data = bytes(sample)
    if (wide := wide_encoding(data)) and (decoded := wide.decoded(data)):
        data = decoded
    invalid = len(data) - len(data.decode("utf-8", errors="ignore").encode())
    control = len(data) - len(data.translate(None, _CONTROL))
    if invalid and RARE_CONTROL * control <= len(data) and (has_blanks_like_text(data) or double_byte_encoding(data)):
        invalid = 0  # letters of some code page, or of two bytes each
    return invalid + control <= MAX_CONTROL_SHARE * len(data)


def is_redundant(data: bytes) -> bool:
    """Whether a text repeats itself so much that a model is not worth its time."""
    sample = data[:SAMPLE]
    return len(sample) >= MIN_REDUNDANT and len(sample) >= HIGHLY_REDUNDANT * len(bz2.compress(sample))


def probes(n_tokens: int) -> list[slice]:
    """Which of so many tokens of a segment are tried before the others are; none where that does not pay."""
    if n_tokens < WORTH_PROBING:
        return []
    begins = [int(n_tokens * place) - PROBE_TOKENS // 2 for place in PROBE_PLACES]
    return [slice(begin, begin + PROBE_TOKENS) for begin in begins]


def next_segment(data: Bytes, start: int, size: int) -> tuple[int, bool]:
    """The end of the segment of `data` that begins at `start`, and whether it is text.

    A text segment has about `size` bytes and ends after a line, or else a word, or else a whole character. A
    segment of other data goes on as far as samples look like other data, up to MAX_GROUP_SIZE bytes.
    """
    if packed_format(data):
        return min(start + MAX_GROUP_SIZE, len(data)), False
    sample = bytes(data[start : start + min(size, SAMPLE)])
    if not looks_like_text(sample):
        end = start
        while end - start < MAX_GROUP_SIZE and end < len(data):
            end = min(end + SAMPLE, start + MAX_GROUP_SIZE, len(data))
            if looks_like_text(data[end : end + SAMPLE]):
                break
        return end, False
    if len(data) - start <= size:
        return len(data), True
    if wide := wide_encoding(sample):
        return start + wide.end(bytes(data[start : start + size])), True
    tail = bytes(data[start + size // 2 : start + size])
    for mark in (b"\n", b" "):
        if (found := tail.rfind(mark)) >= 0:
            return start + size // 2 + found + 1, True
    end = start + size
    while end > start + size - 4 and is_inside_character(data, end):
        end -= 1
    return end, True


def is_inside_character(data: Bytes, position: int) -> bool:
    """Whether a cut at `position` would fall before a UTF-8 continuation byte."""
    return 0 < position < len(data) and data[position] & 0xC0 == 0x80


def cut(contents: Sequence[bytes], costs: np.ndarray, capacity: float, max_tokens: int, max_bytes: int) -> list[slice]:
    """Cut tokens into chunks that cost about the same, each at most `capacity` bits where that is possible.

    `contents` are the bytes and `costs` (T,) the bits of the tokens. A chunk has 1 to `max_tokens` tokens,
    and ends between characters wherever a whole character fits.
    """
    total = float(costs.sum())
    share = total / max(1, np.ceil(total / capacity))
    chunks: list[slice] = []
    start, filled, size = 0, 0.0, 0
    safe = 0  # the last place in this chunk where a cut breaks no character
    for t, content in enumerate(contents):
        breaks_character = bool(content) and content[0] & 0xC0 == 0x80
        if t > start and not breaks_character:
            safe = t
        full = filled + costs[t] > share * 1.0001
        crowded = t - start >= max_tokens or size + len(content) > max_bytes
        if t > start and (crowded or (full and not breaks_character)):
            end = t if not breaks_character or safe <= start else safe
            chunks.append(slice(start, end))
            start = end
            filled, size = float(costs[start:t].sum()), sum(map(len, contents[start:t]))
        filled += float(costs[t])
        size += len(content)
    chunks.append(slice(start, len(contents)))
    return chunks
