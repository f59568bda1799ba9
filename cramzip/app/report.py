"""Results, on stdout: what `list` and `bench` print, as tables; and what `bench` gives machines."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import __version__
from ..errors import UsageError
from .console import count, human, printable
from .details import description_record, details, model_name
from .files import original_path
from .tables import Table

if TYPE_CHECKING:
    from ..config import CramConfig
    from ..container.description import Description
    from ..container.records import Header
    from ..lm.models import LM
    from .bench import Measurement

MEASURED_WITH = ("torch", "transformers", "tokenizers", "zstandard")  # and what the rivals need

# -- list ------------------------------------------------------------------------------------------

Listed = tuple[str, "Description"]  # a file, and what it consists of


def print_list(listed: Iterable[Listed]) -> None:
    """A line for each file, as `zstd -l` prints them."""
    listed = list(listed)
    some = any(described.header.dictionary for _, described in listed)
    texts = ("Model", *(("Dictionary",) if some else ()), "Name", "File")
    table = Table(("Compressed", "Original", "Ratio", *texts), frozenset({"Compressed", "Original", "Ratio"}))
    for file, described in listed:
        header = described.header
        dictionary = header.dictionary.hex() if header.dictionary else "-"
        table.add(
            f"{described.file_size:,}",
            f"{described.original_size:,}",
            f"{described.ratio:.3f}",
            model_name(header.model) if header.model else "-",
            *((dictionary,) if some else ()),
            _original_name(file, header),
            file,
        )
    click.echo("\n".join(table.shown()))


def _original_name(file: str, header: Header) -> str:
    """What `d` calls the original."""
    try:
        return original_path(Path(file), header).name
    except (UsageError, ValueError):
        return header.name or "-"


def print_document(document: str | None) -> None:
    """What machines read, where it was asked for."""
    if document is not None:
        click.echo(document)


def print_details(file: str, described: Description) -> None:
    click.echo(printable(file))
    for line in details(described):
        click.echo(printable(line))


# -- bench -----------------------------------------------------------------------------------------


def print_bench(measurements: Sequence[Measurement], model: LM) -> None:
    """A block of rows for each file; what the columns and the model mean stands under the table."""
    has_vectors = any(one.spent is not None for one in measurements)
    vectors = ("Spent/saved",) if has_vectors else ()
    numbers = ("Bytes", "Ratio", "Bits/byte", "Of bound", *vectors, "Compress", "Decompress")
    table = Table(("Codec", *numbers), frozenset(numbers))
    previous = None
    for one in measurements:
        if one.file != previous:
            table.add(f"{one.file} ({count(one.original_bytes, 'byte')})")
        previous = one.file
        table.add(
            one.codec if one.intact else f"{one.codec}: NOT EXACT",
            f"{one.compressed_bytes:,}",
            f"{one.ratio:.3f}",
            f"{one.bits_per_byte:.3f}",
            "-" if one.bound_share is None else f"{one.bound_share:.1%}",
            *((_bargain(one),) if has_vectors else ()),
            human(one.original_bytes / one.compress_seconds, "/s"),
            human(one.original_bytes / one.decompress_seconds, "/s"),
        )
    click.echo("\n".join(table.shown()))
    click.echo("of bound: what an ideal arithmetic coder would need with the model alone, as a share of the file")
    if has_vectors:
        click.echo(
            "spent/saved: bits that vectors take, or choosing them; and bits that they took off the text, at least"
        )
    click.echo(f"model, not counted above: {printable(model.model_id)}, {count(model.weight_bytes, 'byte')}")


def _bargain(one: Measurement) -> str:
    if one.spent is None:
        return "-"
    return f"{one.spent:,.0f}/{'?' if one.saved is None else f'{one.saved:,.0f}'}"


def bench_record(measurements: Sequence[Measurement], model: LM, configs: Mapping[str, CramConfig]) -> dict[str, Any]:
    """The same for machines, with all that it takes to judge the numbers; `configs` by setting."""
    from .rivals import RIVALS

    packages = [*MEASURED_WITH, *(rival.package for rival in RIVALS.values() if rival.package)]
    return {
        "versions": {"cramzip": __version__, "python": platform.python_version()}
        | {package: version(package) for package in packages if find_spec(package)},
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
                "vector_bits_spent": one.spent,
                "vector_bits_saved": one.saved,
                "parts": description_record(one.parts) if one.parts else None,
            }
            for one in measurements
        ],
    }
