"""Results, on stdout: what `list` and `bench` print, for people as tables and for machines as JSON."""

from __future__ import annotations

import math
import os
import platform
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import click

from . import __version__
from .console import count, human, printable, ratio
from .container import Container

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from .bench import Measurement
    from .cram import CramConfig
    from .describe import Description
    from .lm import FrozenLM

MEASURED_WITH = ("torch", "transformers", "tokenizers", "zstandard", "brotli")
WIDE = 10_000  # columns, where no terminal cuts lines off

# -- list ------------------------------------------------------------------------------------------

Listed = tuple[str, Container, "Description"]  # file, its header and table, its sizes


def print_list(listed: Iterable[Listed]) -> None:
    """A line for each file, as `zstd -l` prints them."""
    table = _table(("Chunks", "Crammed", "Compressed", "Original", "Ratio", "Bits/byte"), ("Model", "Name", "File"))
    for file, container, described in listed:
        header = container.header
        table.add_row(
            f"{described.n_chunks:,}",
            f"{described.n_crammed:,}",
            f"{described.file_size:,}",
            f"{described.original_size:,}",
            f"{described.ratio:.3f}",
            f"{described.bits_per_byte:.3f}" if described.original_size else "-",
            _text(header.model.model_id if header.model else "-"),
            _text(header.name or "-"),
            _text(file),
        )
    _print(table)


def print_details(file: str, container: Container, described: Description) -> None:
    """Everything that a file says, and what each part of it costs."""
    header = container.header
    kinds = Counter(entry.kind.name.lower() for entry in container.entries)
    rows = [
        ("name", header.name or "-"),
        ("original", count(described.original_size, "byte")),
        ("SHA-256", header.original_sha256.hex()),
        ("compressed", count(described.file_size, "byte")),
        ("ratio", ratio(described)),
        ("chunks", ", ".join(f"{kinds[kind]:,} {kind}" for kind in sorted(kinds)) or "none"),
    ]
    if model := header.model:
        rows += [
            ("tokens", f"{described.n_tokens:,} in {count(described.n_vectors, 'vector')} of {model.vector_width}"),
            ("tokens/vector", f"{described.tokens_per_vector:.2f}"),
            ("corrections", f"{described.n_corrections:,}"),
            ("model", model.model_id),
            ("revision", model.revision or "-"),
            ("fingerprint", model.fingerprint.hex()),
            ("tokenizer", model.tokenizer_hash.hex()),
            ("vocabulary", f"{model.vocabulary_size:,} tokens"),
            ("arithmetic", f"float32, logits may differ by 2^-{model.noise_exponent}"),
        ]
    rows += [
        (part, f"{count(size, 'byte')}, {size / described.file_size:.1%} of the file")
        for part, size in (
            ("in header, table", described.header_bytes),
            ("in vectors", described.vector_bytes),
            ("in corrections", described.correction_bytes),
            ("in stored chunks", described.stored_bytes),
        )
    ]
    click.echo(printable(file))
    for label, value in rows:
        click.echo(f"  {label:<17} {printable(value)}")


def list_record(file: str, container: Container, described: Description) -> dict[str, Any]:
    """The same for machines: sizes in bytes, hashes in hexadecimal."""
    header = container.header
    model = None
    if header.model:
        model = {
            "id": header.model.model_id,
            "revision": header.model.revision,
            "fingerprint": header.model.fingerprint.hex(),
            "tokenizer_hash": header.model.tokenizer_hash.hex(),
            "vocabulary_size": header.model.vocabulary_size,
            "vector_width": header.model.vector_width,
            "noise_exponent": header.model.noise_exponent,
        }
    return {
        "file": file,
        "name": header.name,
        "original_sha256": header.original_sha256.hex(),
        **description_record(described),
        "model": model,
    }


def description_record(described: Description) -> dict[str, Any]:
    return {
        **asdict(described),
        "ratio": described.ratio,
        "bits_per_byte": _or_none(described.bits_per_byte),
        "tokens_per_vector": _or_none(described.tokens_per_vector),
    }


def _or_none(number: float) -> float | None:
    """JSON knows no NaN."""
    return None if math.isnan(number) else number


# -- bench -----------------------------------------------------------------------------------------


def print_bench(measurements: Sequence[Measurement], model: FrozenLM) -> None:
    """A block of rows for each file; the entropy bound stands under cramzip, the model under the table."""
    table = _table((), ("File", "Codec"), ("Bytes", "Ratio", "Bits/byte", "Compress", "Decompress"))
    previous = None
    for one in measurements:
        new = one.file != previous
        if new and previous is not None:
            table.add_section()
        previous = one.file
        table.add_row(
            _text(f"{one.file} ({one.original_bytes:,})") if new else "",
            one.codec if one.exact else f"{one.codec}: NOT EXACT",
            f"{one.compressed_bytes:,}",
            f"{one.ratio:.3f}",
            f"{one.bits_per_byte:.3f}",
            human(one.original_bytes / one.compress_seconds, "/s"),
            human(one.original_bytes / one.decompress_seconds, "/s"),
            style="bold" if one.entropy_bound is not None else None,
        )
        if one.entropy_bound is not None and one.original_bytes:
            size = one.entropy_bound / 8
            table.add_row(
                "",
                "(entropy bound)",
                f"{size:,.0f}",
                f"{one.original_bytes / size:.3f}" if size else "-",
                f"{one.entropy_bound / one.original_bytes:.3f}",
                "-",
                "-",
                style="dim",
            )
    _print(table)
    click.echo("entropy bound: what an ideal arithmetic coder would need with the same model and the same chunks")
    click.echo(f"model, not counted above: {printable(model.model_id)}, {count(model.weight_bytes, 'byte')}")


def bench_record(measurements: Sequence[Measurement], model: FrozenLM, config: CramConfig) -> dict[str, Any]:
    """The same for machines, with all that it takes to judge the numbers."""
    return {
        "versions": {"cramzip": __version__, "python": platform.python_version()}
        | {package: version(package) for package in MEASURED_WITH},
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
        "config": asdict(config),
        "measurements": [
            {
                "file": one.file,
                "codec": one.codec,
                "original_bytes": one.original_bytes,
                "compressed_bytes": one.compressed_bytes,
                "ratio": one.ratio,
                "bits_per_byte": one.bits_per_byte,
                "compress_seconds": one.compress_seconds,
                "decompress_seconds": one.decompress_seconds,
                "exact": one.exact,
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
