"""Results, on stdout: what `list` and `bench` print, for people as tables and for machines as JSON."""

from __future__ import annotations

import math
import os
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import click

from .. import __version__
from ..container.records import BuiltinModel, OutsideModel
from ..errors import WrongModelError
from ..lm.source import find_digest
from .console import count, human, printable, ratio

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from ..config import CramConfig
    from ..container.description import Description
    from ..lm.frozen import FrozenLM
    from .bench import Measurement

MEASURED_WITH = ("torch", "transformers", "tokenizers", "zstandard", "brotli", "pyppmd")
WIDE = 10_000  # columns, where no terminal cuts lines off
HASH_BYTES = 32  # of a whole SHA-256

# -- list ------------------------------------------------------------------------------------------

Listed = tuple[str, "Description"]  # a file, and what it consists of


def print_list(listed: Iterable[Listed]) -> None:
    """A line for each file, as `zstd -l` prints them."""
    table = _table(("Groups", "Modelled", "Compressed", "Original", "Ratio", "Bits/byte"), ("Model", "Name", "File"))
    for file, described in listed:
        header = described.header
        table.add_row(
            f"{described.n_groups:,}",
            f"{described.n_modelled:,}",
            f"{described.file_size:,}",
            f"{described.original_size:,}",
            f"{described.ratio:.3f}",
            f"{described.bits_per_byte:.3f}" if described.original_size else "-",
            _text(_model_name(header.model) if header.model else "-"),
            _text(header.name or "-"),
            _text(file),
        )
    _print(table)


@cache
def _model_name(model: BuiltinModel | OutsideModel) -> str:
    """`builtin:NAME` for a model of this package, `built-in` and its digest for one of another version."""
    if isinstance(model, OutsideModel):
        return model.model_id
    try:
        return find_digest(model.digest).model_id
    except WrongModelError:
        return f"built-in {model.digest.hex()}"


def print_details(file: str, described: Description) -> None:
    click.echo(printable(file))
    for line in details(described):
        click.echo(printable(line))


def details(described: Description) -> list[str]:
    """Everything that a file says, what was chosen, what each part of it costs, and what its vectors bought."""
    rows = [*_about(described), *_choices(described), *_costs(described)]
    return [f"  {label:<16} {value}" for label, value in rows]


def _about(described: Description) -> list[tuple[str, str]]:
    header = described.header
    kept = len(header.original_hash)
    cut = "" if kept == HASH_BYTES else f" (the first {kept} of {HASH_BYTES} bytes)"
    kinds = ", ".join(f"{n:,} {kind.name.lower()}" for kind, n in described.kinds.items())
    return [
        ("name", header.name or "-"),
        ("original", count(described.original_size, "byte")),
        ("SHA-256", f"{header.original_hash.hex()}{cut}"),
        ("compressed", count(described.file_size, "byte")),
        ("ratio", ratio(described)),
        ("groups", kinds or "none"),
    ]


def _choices(described: Description) -> list[tuple[str, str]]:
    """What the writer chose, and the model; nothing for a file that needs none."""
    model, parameters = described.header.model, described.header.parameters
    if model is None:
        return []
    rows = [
        ("tokens", f"{described.n_tokens:,} in {count(described.n_chunks, 'chunk')}"),
        ("chunk", f"up to {count(parameters.chunk_tokens, 'token')}, after up to {parameters.context_tokens:,} seen"),
        ("vectors", _vectors(described)),
        ("arithmetic", f"float32, logits may differ by 2^-{parameters.noise_exponent}"),
        ("model", _model_name(model)),
    ]
    if isinstance(model, BuiltinModel):
        return [*rows, ("digest", model.digest.hex())]
    return [
        *rows,
        ("revision", model.revision or "-"),
        ("fingerprint", model.fingerprint.hex()),
        ("tokenizer", model.tokenizer_hash.hex()),
    ]


def _vectors(described: Description) -> str:
    vectors = described.header.vectors
    if vectors is None:
        return "none"
    fewest, most = described.vectors_per_chunk
    each = f"{fewest:,}" if fewest == most else f"{fewest:,} to {most:,}"
    per_dimension = "1 bit" if vectors.coding.bits == 1 else f"{vectors.coding.name_of_bits} bits"
    place = ", after the start token" if vectors.after_start else ""
    return (
        f"{each} per chunk, {described.n_vectors:,} in all, of {count(vectors.width, 'dimension')}, "
        f"{per_dimension} per dimension{place}"
    )


def _costs(described: Description) -> list[tuple[str, str]]:
    parts = {
        "in header, table": described.header_bytes,
        "in vectors": described.vector_bytes,
        "in corrections": described.correction_bytes,
        "in stored groups": described.stored_bytes,
    }
    rows = [
        (part, f"{count(size, 'byte')}, {size / described.file_size:.1%} of the file") for part, size in parts.items()
    ]
    return [*rows, ("vectors bought", _bargain(described))] if described.n_vectors else rows


def _bargain(described: Description) -> str:
    """What the vectors cost and what they saved, in bits."""
    spent = f"{count(described.vector_bits, 'bit')} spent"
    if described.vector_gain is None or described.vector_balance is None:
        return f"{spent}, what they took off the corrections is not known"
    return (
        f"{spent}, {count(described.vector_gain, 'bit')} taken off the corrections, "
        f"balance {described.vector_balance:+,} bits"
    )


def list_record(file: str, described: Description) -> dict[str, Any]:
    """The same for machines: sizes in bytes, hashes in hexadecimal."""
    header = described.header
    return {
        "file": file,
        "name": header.name,
        "original_hash": header.original_hash.hex(),
        **description_record(described),
        "model": _model_record(header.model) if header.model else None,
    }


def _model_record(model: BuiltinModel | OutsideModel) -> dict[str, Any]:
    if isinstance(model, BuiltinModel):
        return {"id": _model_name(model), "digest": model.digest.hex()}
    return {
        "id": model.model_id,
        "revision": model.revision,
        "fingerprint": model.fingerprint.hex(),
        "tokenizer_hash": model.tokenizer_hash.hex(),
    }


def description_record(described: Description) -> dict[str, Any]:
    """Sizes in bytes, counts, what was chosen, and what the vectors bought in bits; None for what is not known."""
    header = described.header
    chosen: dict[str, Any] = {"parameters": None, "vectors": None}
    if header.model:
        chosen["parameters"] = asdict(header.parameters)
    if header.vectors:
        fewest, most = described.vectors_per_chunk
        chosen["vectors"] = {
            "bits_per_dimension": header.vectors.coding.name_of_bits,
            "width": header.vectors.width,
            "fewest_per_chunk": fewest,
            "most_per_chunk": most,
            "bits_spent": described.vector_bits,
            "bits_gained": described.vector_gain,
            "bits_balance": described.vector_balance,
        }
    return {
        "original_size": described.original_size,
        "file_size": described.file_size,
        "ratio": described.ratio,
        "bits_per_byte": _or_none(described.bits_per_byte),
        "header_bytes": described.header_bytes,
        "vector_bytes": described.vector_bytes,
        "correction_bytes": described.correction_bytes,
        "stored_bytes": described.stored_bytes,
        "groups": {kind.name.lower(): n for kind, n in described.kinds.items()},
        "n_groups": described.n_groups,
        "n_modelled": described.n_modelled,
        "n_stored": described.n_stored,
        "n_chunks": described.n_chunks,
        "n_tokens": described.n_tokens,
        "n_vectors": described.n_vectors,
        "tokens_per_vector": _or_none(described.tokens_per_vector),
        **chosen,
    }


def _or_none(number: float) -> float | None:
    """JSON knows no NaN."""
    return None if math.isnan(number) else number


# -- bench -----------------------------------------------------------------------------------------


def print_bench(measurements: Sequence[Measurement], model: FrozenLM) -> None:
    """A block of rows for each file; what the columns and the model mean stands under the table."""
    right = ("Bytes", "Ratio", "Bits/byte", "Of bound", "Compress", "Decompress")
    table = _table((), ("File", "Codec"), right)
    previous = None
    for one in measurements:
        new = one.file != previous
        if new and previous is not None:
            table.add_section()
        previous = one.file
        table.add_row(
            _text(f"{one.file} ({one.original_bytes:,})") if new else "",
            one.codec if one.intact else f"{one.codec}: NOT EXACT",
            f"{one.compressed_bytes:,}",
            f"{one.ratio:.3f}",
            f"{one.bits_per_byte:.3f}",
            "-" if one.bound_share is None else f"{one.bound_share:.1%}",
            human(one.original_bytes / one.compress_seconds, "/s"),
            human(one.original_bytes / one.decompress_seconds, "/s"),
            style="bold" if one.setting is not None else None,
        )
    _print(table)
    click.echo(
        "of bound: what an ideal arithmetic coder would need with the same model and chunks, as a share of the file"
    )
    click.echo(f"model, not counted above: {printable(model.model_id)}, {count(model.weight_bytes, 'byte')}")


def bench_record(
    measurements: Sequence[Measurement], model: FrozenLM, configs: Mapping[str, CramConfig]
) -> dict[str, Any]:
    """The same for machines, with all that it takes to judge the numbers; `configs` by setting."""
    return {
        "versions": {"cramzip": __version__, "python": platform.python_version()}
        | {package: version(package) for package in MEASURED_WITH if find_spec(package)},
        "machine": {
            "platform": platform.platform(),
            "processor": platform.machine(),
            "cpus": os.cpu_count(),
            "device": model.device,
        },
        "model": {
            "id": model.model_id,
            "revision": model.revision,
            "fingerprint": model.fingerprint.hex(),
            "weight_bytes": model.weight_bytes,
            "n_parameters": model.n_parameters,
        },
        "settings": {setting: asdict(config) for setting, config in configs.items()},
        "measurements": [
            {
                "file": one.file,
                "codec": one.codec,
                "setting": one.setting,
                "original_bytes": one.original_bytes,
                "compressed_bytes": one.compressed_bytes,
                "ratio": one.ratio,
                "bits_per_byte": one.bits_per_byte,
                "compress_seconds": one.compress_seconds,
                "decompress_seconds": one.decompress_seconds,
                "exact": one.intact,
                "entropy_bound_bits": one.entropy_bound,
                "entropy_bound_share": one.bound_share,
                "parts": description_record(one.parts) if one.parts else None,
            }
            for one in measurements
        ],
    }


# -- tables ----------------------------------------------------------------------------------------


def _table(left: Sequence[str], texts: Sequence[str], right: Sequence[str] = ()) -> Table:
    """An empty table: columns of numbers, of text, of numbers again."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for names, justify in ((left, "right"), (texts, "left"), (right, "right")):
        for name in names:
            table.add_column(name, justify=justify, overflow="fold")  # type: ignore[arg-type]
    return table


def _text(text: str) -> Text:
    """A name as it is: in a plain `str`, rich would see markup and codes of emoji."""
    from rich.text import Text

    return Text(printable(text))


def _print(table: Table) -> None:
    """To stdout; full width where no terminal limits it."""
    from rich.console import Console as RichConsole

    console = RichConsole(file=sys.stdout, highlight=False)
    if not console.is_terminal:
        console.width = WIDE
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        click.echo(line.rstrip())
