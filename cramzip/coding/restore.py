"""From an opened file to the original: which groups are decoded together, by whom, and whether all is right."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, tee
from typing import TYPE_CHECKING, NamedTuple

from ..container import opened
from ..container.opened import Opened
from ..container.reading import check_content
from ..container.records import Group, Header, Kind
from ..container.stored import stored_content
from ..container.wire import Bytes
from ..errors import DamagedFileError, UsageError, VerificationError, WrongModelError
from ..lm.exact import ExactLM
from ..lm.identity import require
from ..lm.models import as_torch
from .exact_decode import decode_group
from .view import View

if TYPE_CHECKING:
    from ..lm.models import LM
    from ..workers.base import Workers

WINDOW_BYTES = 2**22  # of a window: its part of the original and its payloads

Progress = Callable[[int], None]
Tokens = list[int]
Window = tuple[list[Group], list[Tokens | None]]  # groups decoded together, and their tokens; None if stored


@dataclass(frozen=True)
class Runner:
    """Who decodes: a model (None where nothing needs one), and `workers` that share its work.

    `batch_size`: groups decoded at once (None: by device). `progress` is told of bytes of the original. `original`:
    what probably comes out, where that is known; it saves time.
    """

    lm: LM | None = None
    batch_size: int | None = None
    workers: Workers | None = None
    progress: Progress = lambda _: None
    original: Bytes | None = None

    def decoded(self, file: Opened) -> Iterator[Window]:
        """The groups of a file in order, window by window, with the tokens of those that are not stored."""
        alone = file.header.is_exact and self.workers is None  # its lanes are work enough, and its text can go out
        windows = file.windows(1 if alone else WINDOW_BYTES)
        n_modelled = sum(not entry.kind.is_stored for entry in file.entries)
        if self.lm is None or self.workers is None or n_modelled < 2:
            original = None if self.original is None else memoryview(self.original)
            for window in windows:
                meter = _Meter(window, self.progress)
                yield window, decode_groups(file.header, window, self.lm, self.batch_size, meter.add, original)
                meter.finish()
                original = None if original is None else original[meter.size :]
            return
        windows, ahead = tee(windows)
        results = self.workers.map(self.lm, _decode_share, self._shares(file.header, ahead, self.workers.n))
        for window in windows:
            tokens: list[Tokens | None] = [None] * len(window)
            for indices in _deal(window, self.workers.n):
                for i, row in zip(indices, next(results), strict=True):
                    tokens[i] = row
            yield window, tokens
            _Meter(window, self.progress).finish()

    def _shares(self, header: Header, windows: Iterator[list[Group]], n: int) -> Iterator[_Share]:
        for window in windows:
            for indices in _deal(window, n):
                groups = tuple(replace(window[i], payload=bytes(window[i].payload)) for i in indices)
                yield _Share(header, groups, self.batch_size)


def restore(file: Opened, runner: Runner, windows: list[Window] | None = None) -> Iterator[bytes]:
    """The contents of the groups in order. Nothing is certain before the last one has come without an error.

    Each window is added to `windows` when it is decoded. Raises DamagedFileError, and WrongModelError unless the runner
    has the model of the file.
    """
    check_model(file, runner.lm)
    digest = hashlib.sha256()
    for window in runner.decoded(file):
        if windows is not None:
            windows.append(window)
        for content in _contents(*window, runner.lm):
            digest.update(content)
            yield content
    expected = file.header.original_hash
    if (found := digest.digest()[: len(expected)]) != expected:
        raise DamagedFileError("content", f"Original_Hash: expected {expected.hex()}, found {found.hex()}")


def restore_part(file: Opened, lm: LM | None, start: int, stop: int) -> bytes:
    """Bytes `start` to `stop` of the original; only the groups that hold them are decoded.

    They are checked by the checksums of these groups, or, in a file of one group, by the hash of the whole.
    """
    size = file.header.original_size
    if not 0 <= start <= size:
        raise UsageError(f"start: {start} is not in a file of {size} bytes")
    if len(file.entries) == 1:  # its only checksum is the hash of the whole
        return b"".join(restore(file, Runner(lm)))[start:stop]
    check_model(file, lm)
    touched = [
        (offset, group)
        for offset, group in zip(file.offsets, file, strict=False)
        if offset < stop and offset + group.entry.size > start
    ]
    groups = [group for _, group in touched]
    content = b"".join(_contents(groups, decode_groups(file.header, groups, lm), lm))
    first = touched[0][0] if touched else 0
    return content[start - first : stop - first]


def verify(file: Opened, original: Bytes, runner: Runner) -> None:
    """Decode a file that was just made. Raises VerificationError if it does not give `original`."""
    position = 0
    try:
        for content in restore(file, replace(runner, original=original)):
            if content != original[position : position + len(content)]:
                raise VerificationError(f"the finished file decodes to other bytes from byte {position} on")
            position += len(content)
    except DamagedFileError as error:
        raise VerificationError(f"the finished file does not decode: {error}") from error
    if position != len(original):
        raise VerificationError(f"the finished file decodes to {position} bytes of {len(original)}")


def check_model(file: Opened, lm: LM | None) -> None:
    """Raise WrongModelError unless `lm` is the model of the file, and has the positions that its chunks need."""
    header = file.header
    if header.model is None:
        return
    lm = _suited(require(lm, header.model), header)
    if header.dictionary is not None:
        assert isinstance(lm, ExactLM)
        _require_dictionary(lm, header.dictionary)
    if header.vectors and header.vectors.width != lm.width:
        raise WrongModelError(f"Vector_Width: the file needs {header.vectors.width}, {lm.model_id} has {lm.width}")
    if header.is_exact:
        assert isinstance(lm, ExactLM)
        _require_probe(lm, header.probe)
        _require_codebook(file, lm)
        return
    view = View.of(header)
    if view.start_token >= lm.vocabulary_size:
        raise WrongModelError(f"Start_Token: {view.start_token}, {lm.model_id} has {lm.vocabulary_size}")
    modelled = [entry for entry in file.entries if not entry.kind.is_stored]
    needed = max((view.positions(entry.n_tokens, entry.n_vectors) for entry in modelled), default=0)
    if lm.context is not None and needed > lm.context:
        raise WrongModelError(f"a chunk needs {needed} positions, {lm.model_id} has {lm.context}")


def _require_dictionary(lm: ExactLM, needed: bytes) -> None:
    if lm.dictionary is None:
        raise WrongModelError(f"Dictionary_Hash: {needs_dictionary(needed)}")
    if (found := lm.dictionary.hash[: len(needed)]) != needed:
        raise WrongModelError(
            f"Dictionary_Hash: {needs_dictionary(needed)}; the one that is given has {found.hex()} with {lm.model_id}"
        )


def _require_probe(lm: ExactLM, needed: bytes | None) -> None:
    if (needed is None) == lm.is_wide:
        kinds = "integer weights", "float weights"
        raise WrongModelError(
            f"the file needs a model with {kinds[not lm.is_wide]}, {lm.model_id} has {kinds[lm.is_wide]}"
        )
    found = lm.probe
    if needed is not None and found is not None and found[: len(needed)] != needed:
        raise WrongModelError(
            f"Probe: the file needs {needed.hex()}, {lm.model_id} gives {found[: len(needed)].hex()} here: one of two "
            "machines does not compute as it should, or the file was made with another start token"
        )


def _require_codebook(file: Opened, lm: ExactLM) -> None:
    needed = file.header.codebook
    if needed is not None:
        require_given(needed, lm.given.hash if lm.given else None)
    elif any(entry.kind is Kind.CHOSEN for entry in file.entries) and lm.codebook is None:
        raise WrongModelError(f"Kind: lanes begin with vectors of a codebook, and {lm.model_id} has none")


def require_given(needed: bytes, found: bytes | None) -> None:
    """Raise WrongModelError unless `found`, the hash of a codebook, is that which a file needs."""
    told = f"Codebook_Hash: the file needs the codebook {needed.hex()}"
    if found is None:
        raise WrongModelError(f"{told}; say with --codebook which file that is")
    if found[: len(needed)] != needed:
        raise WrongModelError(f"{told}; the one that is given has {found[: len(needed)].hex()}")


def needs_dictionary(needed: bytes) -> str:
    """What people are told of a file that needs a dictionary with this hash."""
    return f"the file needs the dictionary {needed.hex()}; say with -D which file that is"


def _suited(lm: LM, header: Header) -> LM:
    """The model as a file needs it: in exact arithmetic, or in floats. Raises WrongModelError."""
    if header.is_exact and not isinstance(lm, ExactLM):
        raise WrongModelError(f"the file needs exact arithmetic, which cannot run {lm.model_id}")
    return lm if header.is_exact else as_torch(lm)


def decode_groups(
    header: Header,
    groups: Sequence[Group],
    lm: LM | None,
    batch_size: int | None = None,
    progress: Progress | None = None,
    original: Bytes | None = None,
) -> list[Tokens | None]:
    """The tokens of modelled groups, None for stored ones; `progress` is told of tokens.

    `original` begins with what probably comes out of these groups, if that is known.
    """
    tokens: list[Tokens | None] = [None] * len(groups)
    modelled = [index for index, group in enumerate(groups) if not group.entry.kind.is_stored]
    if not modelled:
        return tokens
    assert lm is not None
    lm = _suited(lm, header)
    if isinstance(lm, ExactLM):
        places = list(accumulate((group.entry.size for group in groups), initial=0))
        for index in modelled:
            part = None if original is None else original[places[index] : places[index + 1]]
            tokens[index] = decode_group(lm, groups[index], header, progress or (lambda _: None), part)
        return tokens
    from .decode import Recipe, decode_all
    from .quantize import dequantize

    recipes = [
        Recipe(
            groups[index].entry.n_tokens,
            tuple(map(dequantize, opened.vectors(groups[index], header))),
            opened.corrections(groups[index], header),
        )
        for index in modelled
    ]
    decoded = decode_all(lm, recipes, View.of(header), header.parameters.noise_bound, batch_size, progress)
    for index, row in zip(modelled, decoded, strict=True):
        tokens[index] = row
    return tokens


def _contents(groups: Sequence[Group], decoded: Sequence[Tokens | None], lm: LM | None) -> Iterator[bytes]:
    """The contents of some groups, by their tokens."""
    for group, tokens in zip(groups, decoded, strict=True):
        if tokens is None:
            yield stored_content(group)
            continue
        assert lm is not None
        try:
            content = opened.original(group, lm.tokenizer.decode(tokens))
        except ValueError as error:
            raise DamagedFileError("content", str(error)) from None
        check_content(group.entry, content)
        yield content


class _Meter:
    """Tells `progress` how many bytes of a window are done, while its tokens are decoded."""

    def __init__(self, window: Sequence[Group], progress: Progress):
        self.progress = progress
        self.size = sum(group.entry.size for group in window)
        modelled = [group.entry for group in window if not group.entry.kind.is_stored]
        self.modelled_size = sum(entry.size for entry in modelled)
        self.n_tokens = sum(entry.n_tokens for entry in modelled)
        self.n_decoded = self.told = 0

    def add(self, n: int) -> None:
        """`n` more tokens are decoded. Those of a batch that did not fit into memory are told twice."""
        self.n_decoded = min(self.n_decoded + n, self.n_tokens)
        self._tell(self.modelled_size * self.n_decoded // max(1, self.n_tokens))

    def finish(self) -> None:
        self._tell(self.size)

    def _tell(self, n_bytes: int) -> None:
        self.progress(n_bytes - self.told)
        self.told = n_bytes


class _Share(NamedTuple):
    """What one worker decodes of a window."""

    header: Header
    groups: tuple[Group, ...]
    batch_size: int | None


def _decode_share(lm: LM, share: _Share) -> list[Tokens | None]:
    return decode_groups(share.header, share.groups, lm, share.batch_size)


def _deal(groups: Sequence[Group], n: int) -> list[list[int]]:
    """Indices of modelled groups, dealt to at most `n` workers: to each groups of all sizes, about as much work."""

    def key(index: int) -> tuple[int, int]:
        return groups[index].entry.n_vectors, groups[index].entry.n_tokens

    modelled = [index for index, group in enumerate(groups) if not group.entry.kind.is_stored]
    order = sorted(modelled, key=key, reverse=True)
    return [order[first::n] for first in range(min(n, len(order)))]
