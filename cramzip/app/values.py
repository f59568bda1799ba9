"""What is checked of the options of the command line, one by one; each check raises click.BadParameter."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import click

from .files import STDIN
from .streams import descriptor_of

EXPERIMENT_NAMES = (
    "learning-rate",
    "capacity",
    "vectors",
    "cross-entropy",
    "utilisation",
    "similarity",
    "interpolation",
    "bits",
    "context",
    "recipe",
)
KIND_NAMES = ("books", "new", "random words", "files")
STDIN_DESCRIPTOR = 0
SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([KMGT]?)(?:i?B)?", re.IGNORECASE)


def not_empty(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value == "":
        raise click.BadParameter("must not be empty", ctx, param)
    return value


def inputs_of(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    """Names of inputs: `-` for every name of standard input, which can be read once; an empty name is none.

    (What a shell makes of `"$folder"` when nobody has set it would else be the current folder.)
    """
    if "" in value:
        raise click.BadParameter("the name of a file must not be empty", ctx, param)
    names = tuple(STDIN if descriptor_of(Path(name)) == STDIN_DESCRIPTOR else name for name in value)
    if names.count(STDIN) > 1:
        raise click.BadParameter("standard input can be read once, and is named several times", ctx, param)
    return names


def settings_of(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    """The settings that several options name, one or more each; in order, once each."""
    from .bench import SETTINGS

    return _some_of(SETTINGS, value, ctx, param)


def experiments_of(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    """The experiments that several options name, one or more each, or all; in order, once each."""
    names = _some_of((*EXPERIMENT_NAMES, "all"), value, ctx, param)
    return EXPERIMENT_NAMES if "all" in names else names


def kinds_of(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    """The kinds of text that several options name, one or more each; in order, once each."""
    return _some_of(KIND_NAMES, value, ctx, param)


def _some_of(known: Sequence[str], value: Sequence[str], ctx: click.Context, param: click.Parameter) -> tuple[str, ...]:
    names = [name.strip() for names in value for name in names.split(",")]
    unknown = next((name for name in names if name not in known), None)
    if unknown is not None:
        raise click.BadParameter(f"expected some of {', '.join(known)}, found {unknown!r}", ctx, param)
    return tuple(name for name in known if name in names)


def ray_address_of(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """The address of a Ray cluster, in a form that can be one."""
    if value is None:
        return None
    from ..workers.cluster import KNOWN_ADDRESSES, host_and_port

    if value in KNOWN_ADDRESSES or host_and_port(value):
        return value
    raise click.BadParameter(f"expected HOST:PORT, ray://HOST:PORT or auto, found {value!r}", ctx, param)


def numbers_of(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """Whole numbers with commas between them, in order, once each; `paper` is for those of the paper."""
    if value in (None, "paper"):
        return () if value else None
    try:
        numbers = tuple(sorted({int(number) for number in value.split(",")}))
    except ValueError:
        numbers = (0,)
    if not 1 <= numbers[0] <= numbers[-1] <= 2**16:
        raise click.BadParameter(f"expected numbers from 1 to 65536 with commas, or paper, found {value!r}", ctx, param)
    return numbers


def bytes_of(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """A number of bytes, as xz and zstd have it: K, M, G and T stand for powers of 1,024."""
    if value is None:
        return None
    if (found := SIZE.fullmatch(value.strip())) is None:
        raise click.BadParameter(f"expected a size such as 500M or 2G, found {value!r}", ctx, param)
    number, unit = found.groups()
    return int(float(number) * 1024 ** " KMGT".index(unit.upper() or " "))
