"""What a filter is, and the numbers in its parameters: varints, and runs of yes and no."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from itertools import groupby
from typing import NamedTuple, NoReturn

from ..errors import DamagedFileError

MAX_VARINT_BYTES = 9
BIT_BY_BIT = b"\0\0"  # instead of runs


class Change(NamedTuple):
    """The bytes that a filter makes, and what it needs besides to make the former ones of them."""

    changed: bytes
    parameters: bytes


class Filter(ABC):
    """A reversible change. `name` is for people; `is_certain`: where it can be made, it is worth it."""

    id: int
    name: str
    is_certain = True

    @abstractmethod
    def apply(self, data: bytes, like: bytes | None = None) -> Change | None:
        """The change of `data`; None where it cannot be made, or has no sign of being worth it.

        `like`: parameters whose settings are to be taken, whatever the signs; so the parts of a text are changed alike.
        """

    @abstractmethod
    def invert(self, changed: bytes, parameters: bytes, limit: int) -> bytes:
        """What `apply` was given. Raises DamagedFileError, before it makes much more than `limit` bytes."""


def fail(message: str) -> NoReturn:
    """Raise DamagedFileError: parameters or changed bytes that no filter makes."""
    raise DamagedFileError("content", f"filter: {message}")


def check_size(size: int, limit: int) -> None:
    """Raise DamagedFileError for what is longer than a group may be."""
    if size > limit:
        fail(f"{size} bytes, at most {limit} are allowed")


def pack_varint(value: int) -> bytes:
    """Unsigned LEB128 in its shortest form."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def take_varint(data: bytes, at: int) -> tuple[int, int]:
    """The varint at `at`, and where the next begins. Raises DamagedFileError."""
    value = 0
    for index, byte in enumerate(data[at : at + MAX_VARINT_BYTES]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            if byte == 0 and index:
                fail("a varint is not in its shortest form")
            return value, at + index + 1
    fail("a varint is too long, or cut")


def pack_runs(flags: Iterable[bool]) -> bytes:
    """The lengths of the runs of equal flags but the last, the first of them of True; no bytes where all are True.

    Where that is shorter: two empty runs, which are none, and then a bit for each flag.
    """
    flags = list(flags)
    runs = [(flag, sum(1 for _ in run)) for flag, run in groupby(flags)]
    lengths = [length for _, length in runs[:-1]]
    if runs and not runs[0][0]:
        lengths.insert(0, 0)
    packed = b"".join(map(pack_varint, lengths))
    if len(packed) <= len(BIT_BY_BIT) + -(-len(flags) // 8):
        return packed
    bits = "".join("1" if flag else "0" for flag in reversed(flags))
    return BIT_BY_BIT + int(bits, 2).to_bytes(-(-len(flags) // 8), "little")


def unpack_runs(parameters: bytes, at: int, n: int) -> list[bool]:
    """The `n` flags whose runs begin at `at` of `parameters`. Raises DamagedFileError."""
    if parameters.startswith(BIT_BY_BIT, at):
        return _unpack_bits(parameters[at + len(BIT_BY_BIT) :], n)
    flags: list[bool] = []
    flag, begin = True, at
    while at < len(parameters):
        first = at == begin
        length, at = take_varint(parameters, at)
        if length == 0 and not first:
            fail("a run of no length")
        if length >= n - len(flags):
            fail(f"runs are longer than the {n} places there are")
        flags += [flag] * length
        flag = not flag
    return flags + [flag] * (n - len(flags))


def _unpack_bits(packed: bytes, n: int) -> list[bool]:
    """The lowest `n` bits of bytes of which these are all."""
    bits = bin(int.from_bytes(packed, "little"))[:1:-1]
    if len(packed) != -(-n // 8) or bits.rfind("1") >= n:
        fail(f"{len(packed)} bytes of bits for {n} places, or bits beyond")
    return [bit == "1" for bit in bits[:n].ljust(n, "0")]
