"""Which filters a text gets before it becomes tokens, and what its groups are called afterwards.

What has no sign of any dress is left as it is, after a look at its bytes. Where a sign is no proof, the model is asked:
what it finds cheaper on about 2 kB is right.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from ..container.records import Group
from ..container.stored import stored_groups
from ..container.writing import filtered_group
from ..errors import DamagedFileError
from ..filters.base import Change, Filter
from ..filters.chain import CERTAIN, DOUBTFUL, STRAYS, Chain, extended
from ..filters.double_byte import double_byte_encoding
from ..filters.encodings import CODE_PAGES, is_utf8, wide_encoding
from ..filters.escapes import Escapes
from ..filters.letters import Capitals, bytes_of, text_of
from ..filters.repeats import Repeats
from ..filters.strays import INVALID, NO_PAGE, PAGES, VALID, n_invalid
from .method import Method

SAMPLE = 2**11  # bytes that the model is asked about
BEFORE = 2**7  # of them: before the first that is in doubt
PAGE_SAMPLE = 2**10  # characters that it is asked about in each code page
MOST_ASKED = 6  # code pages
LEAST_REPEAT = {effort: 128 if effort < 6 else 512 for effort in range(1, 10)}  # bytes that become a copy
FURTHER = 16  # bytes, more than an escape of two units has
MOST_TOKENS = 1.2  # of what it is asked about, for each token of what has the fewest; a byte of parameters is one, too


class Undressed(NamedTuple):
    """Filtered bytes, and the filters."""

    content: bytes
    chain: Chain


def undressed(method: Method, content: bytes) -> Undressed:
    """What the model is to see of `content`; the bytes themselves, and no filters, where these do not help."""
    found = Undressed(content, Chain(()))
    if wide := wide_encoding(content):
        found = _with(found, wide)
    elif not is_utf8(content):
        double = double_byte_encoding(content[:SAMPLE])
        found = _with(found, double) if double else found
        found = found if found.chain.steps else _decoded(method, found)
    for certain in CERTAIN:
        found = _with(found, certain)
    for doubtful in DOUBTFUL:
        tried = _with(found, doubtful)
        if tried is not found and _saves(method, found, tried):
            found = tried
    return found if found.chain.restores(found.content, content) else Undressed(content, Chain(()))


def without_repeats(found: Undressed, effort: int) -> Undressed:
    """With copies instead of long repeats: no model is as quick, and what is long enough costs no more so."""
    return _with(found, Repeats(LEAST_REPEAT[effort]))


def _with(found: Undressed, filter_: Filter, like: bytes | None = None) -> Undressed:
    """With one filter more, or the same where it does not help."""
    more = extended(found.chain, found.content, filter_, like)
    return Undressed(*more) if more is not None and more[0] else found  # no bytes have no tokens


def _cost(method: Method, content: bytes) -> float:
    """Bits of some bytes under the model, without vectors; as many as they have where there are no tokens."""
    total = 0.0
    for piece in method.lm.tokenizer.encode(content):
        if piece.ids is None:
            total += 8 * len(piece.content)
        elif piece.ids:
            total += method.cost(piece.ids)
    return total


def _n_tokens(method: Method, content: bytes) -> int:
    return sum(len(piece.content if piece.ids is None else piece.ids) for piece in method.lm.tokenizer.encode(content))


class _Decoding(NamedTuple):
    """A way to read what is no UTF-8, and what it makes of a sample."""

    filter: Filter
    like: bytes | None
    change: Change

    @property
    def bits(self) -> int:
        """Bits of its parameters."""
        return 8 * len(self.change.parameters)


def _decoded(method: Method, plain: Undressed) -> Undressed:
    """Read as the model finds likeliest: in a code page, or in parts; as it is, if it finds that likelier."""
    sample = _sample(plain.content)
    if is_utf8(sample):  # by chance, where passages meet
        return plain
    n_wrong, n_right = n_invalid(plain.content)
    ways: list[tuple[Filter, bytes | None]] = [(page, None) for page in CODE_PAGES]
    in_parts: list[tuple[Filter, bytes | None]] = [(STRAYS, bytes([page])) for page in (*PAGES, NO_PAGE)]
    if n_right:  # a page for all would spoil these letters, unless they are there by chance
        ways = in_parts + ways if n_right < n_wrong else in_parts
    else:
        ways += in_parts
    found: dict[bytes, _Decoding] = {}
    for way, like in ways:
        change = way.apply(sample, b"" if like is None else like)
        if change is not None:
            found.setdefault(change.changed, _Decoding(way, like, change))
    sizes = {content: _n_tokens(method, content) + len(way.change.parameters) for content, way in found.items()}
    likely = [content for content in found if sizes[content] <= MOST_TOKENS * min(sizes.values())]
    asked = sorted(likely, key=lambda content: sizes[content])[:MOST_ASKED]
    costs = {content: _cost(method, content) + found[content].bits for content in asked}
    best = min(costs, key=lambda content: costs[content])
    tried = _with(plain, found[best].filter, found[best].like)
    share = n_invalid(sample)[0] / n_wrong
    gain = (_cost(method, sample) - costs[best] + found[best].bits) / share
    return tried if gain > _more(plain, tried) else plain


def _sample(content: bytes) -> bytes:
    """A few passages in which something is no UTF-8, from all of the content; and some with other letters that are."""
    text = text_of(content)
    wrong = [found.start() for found in INVALID.finditer(text)]
    right = [found.start() for found in VALID.finditer(text)]
    places = [
        among[(len(among) - 1) * i // (n - 1)] for among, n in ((wrong, 4), (right, 2)) if among for i in range(n)
    ]
    size, last, passages = PAGE_SAMPLE // len(places), 0, []
    for place in sorted(places):
        first = max(last, place - size // 4)
        last = max(first, place + size - size // 4)
        passages.append(text[first:last])
    return bytes_of("".join(passages))


def _more(plain: Undressed, tried: Undressed) -> int:
    """Bits that the last filter takes."""
    n_bytes = len(tried.chain.pack()) - (len(plain.chain.pack()) if plain.chain.steps else 0)
    return 8 * n_bytes


def _saves(method: Method, plain: Undressed, tried: Undressed) -> bool:
    """Whether the model finds that the last filter is worth its bytes."""
    last = tried.chain.steps[-1]
    if isinstance(last.filter, Capitals):
        places = [i for i, (a, b) in enumerate(zip(plain.content, tried.content, strict=True)) if a != b]
        first = max(0, places[0] - BEFORE)
        before, after = plain.content[first : first + SAMPLE], tried.content[first : first + SAMPLE]
        share = sum(1 for place in places if place < first + SAMPLE) / len(places)
    elif isinstance(last.filter, Escapes):
        first = max(0, plain.content.index(b"\\u") - BEFORE)
        before = plain.content[first : first + SAMPLE]
        change = last.filter.apply(before, last.parameters)
        assert change is not None
        after, share = change.changed, before.count(b"\\u") / plain.content.count(b"\\u")
    else:
        end = plain.content.rfind(b"\n", 0, SAMPLE) + 1 or len(plain.content)
        before = plain.content[: min(end, len(plain.content))]
        change = last.filter.apply(before, last.parameters)
        assert change is not None
        after, share = change.changed, len(before) / len(plain.content)
    return (_cost(method, before) - _cost(method, after)) / share > _more(plain, tried)


def redressed(groups: Sequence[Group], found: Undressed, original: bytes) -> list[Group] | None:
    """Groups of filtered bytes as groups of `original`. None where one of them ends where `original` has no place."""
    if not found.chain.steps:
        return list(groups)
    if len(groups) == 1:
        return list(_redressed(groups[0], found.chain, original))
    out: list[Group] = []
    begin = at = 0
    for index, group in enumerate(groups):
        size = group.entry.size
        is_last = index == len(groups) - 1
        part = _part(found.chain, original[at:], found.content[begin : begin + size], is_last)
        if part is None:
            return None
        length, chain = part
        out += _redressed(group, chain, original[at : at + length])
        begin, at = begin + size, at + length
    return out


def _redressed(group: Group, chain: Chain, original: bytes) -> Iterable[Group]:
    if group.entry.kind.is_stored:
        return stored_groups(original)
    return [filtered_group(group, chain, original)] if chain.steps else [group]


def _part(chain: Chain, original: bytes, filtered: bytes, is_last: bool) -> tuple[int, Chain] | None:
    """How many bytes at the beginning of `original` give `filtered`, and with which filters."""
    for length in [len(original)] if is_last else _likely_ends(chain, original, filtered):
        made, again = chain.apply(original[:length])
        if length and made == filtered and again.restores(filtered, original[:length]):
            return length, again
    return None


def _likely_ends(chain: Chain, original: bytes, filtered: bytes) -> Iterator[int]:
    """Where the part of `original` that gives `filtered` may end, the likeliest first."""
    if not any(step.parameters for step in chain.steps):
        with suppress(DamagedFileError):
            yield len(chain.invert(filtered, len(original)))
    unit = getattr(chain.steps[0].filter, "unit", 1)
    low, high = 0, min(len(original), 6 * len(filtered) + 256) // unit
    while low < high:  # the largest number of units that do not give too many bytes
        middle = (low + high + 1) // 2
        if len(chain.apply(original[: unit * middle])[0]) <= len(filtered):
            low = middle
        else:
            high = middle - 1
    # A part that ends within an escape, or a letter of several characters, is longer for a moment than one that ends
    # after it; so the right end may be a little further on.
    yield from range(unit * low, min(len(original), unit * low + FURTHER) + 1, unit)
