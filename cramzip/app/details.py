"""What is said of one file, for people as lines and for machines as JSON. Prints nothing."""

from __future__ import annotations

import math
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from ..container.records import BuiltinModel, Kind, OutsideModel
from ..errors import CramError, WrongModelError
from ..lm.source import find_digest
from .console import count, ratio

if TYPE_CHECKING:
    from ..container.description import Chosen, Description
    from ..container.opened import Opened

HASH_BYTES = 32  # of a whole SHA-256


@cache
def model_name(model: BuiltinModel | OutsideModel) -> str:
    """`builtin:NAME` for a model of this package, `built-in` and its digest for one of another version.

    In a file with a dictionary there is no digest to tell them apart.
    """
    if isinstance(model, OutsideModel):
        return model.model_id or f"model {model.fingerprint.hex()}"
    if not model.digest:
        return "built-in"
    try:
        return find_digest(model.digest).model_id
    except WrongModelError:
        return f"built-in {model.digest.hex()}"


def description_of(file: Opened) -> Description:
    """What a file consists of; also what its lanes have chosen, where its model comes with this program."""
    from ..container.description import describe

    found = describe(file)
    model = file.header.model
    if Kind.CHOSEN not in found.kinds or not isinstance(model, BuiltinModel) or file.header.codebook:
        return found
    from ..coding.exact_decode import choices_of
    from ..exact.codebook import beside, read_codebook

    with suppress(CramError):
        path = beside(find_digest(model.digest).path)
        return replace(found, chosen=choices_of(file, read_codebook(path))) if path else found
    return found


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
        ("name", header.name or (f"*.{header.ending}" if header.ending else "-")),
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
    if described.header.is_exact:
        rows = [
            ("tokens", f"{described.n_tokens:,} in {count(described.n_chunks, 'lane')}"),
            ("vectors", _vectors(described)),
            ("arithmetic", f"exact, the same bits on every machine{_probe(described)}"),
        ]
    else:
        seen = f"after up to {parameters.context_tokens:,} seen"
        rows = [
            ("tokens", f"{described.n_tokens:,} in {count(described.n_chunks, 'chunk')}"),
            ("chunk", f"up to {count(parameters.chunk_tokens, 'token')}, {seen}"),
            ("vectors", _vectors(described)),
            ("arithmetic", f"float32, logits may differ by 2^-{parameters.noise_exponent}"),
        ]
    if described.filters:
        rows.append(("filters", _filters(described)))
    dictionary = described.header.dictionary
    if dictionary is not None:
        rows.append(("dictionary", f"{dictionary.hex()}, needed to decompress"))
    if described.header.codebook is not None:
        rows.append(("codebook", f"{described.header.codebook.hex()}, needed to decompress"))
    rows.append(("model", model_name(model)))
    if isinstance(model, BuiltinModel):
        return [*rows, ("digest", model.digest.hex())] if model.digest else rows
    return [
        *rows,
        ("revision", model.revision or "-"),
        ("fingerprint", model.fingerprint.hex()),
        ("tokenizer", model.tokenizer_hash.hex()),
    ]


def _probe(described: Description) -> str:
    probe = described.header.probe
    return "" if probe is None else f"; a model with float weights, probe {probe.hex()}"


def _filters(described: Description) -> str:
    """The filters of each filtered group; those of several groups once, with their number."""
    chains = Counter(", ".join(names) for names in described.filters)
    if described.n_groups == 1:
        return next(iter(chains))
    return "; ".join(f"{chain} ({count(n, 'group')})" for chain, n in chains.items())


def _vectors(described: Description) -> str:
    vectors = described.header.vectors
    if vectors is None:
        return "none"
    fewest, most = described.vectors_per_chunk
    each = f"{fewest:,}" if fewest == most else f"{fewest:,} to {most:,}"
    per_dimension = "1 bit" if vectors.coding.bits == 1 else f"{vectors.coding.name_of_bits} bits"
    place = ", after the start token" if vectors.after_start else ""
    part = "lane" if described.header.is_exact else "chunk"
    return (
        f"{each} per {part}, {described.n_vectors:,} in all, of {count(vectors.width, 'dimension')}, "
        f"{per_dimension} per dimension{place}"
    )


def _costs(described: Description) -> list[tuple[str, str]]:
    parts = {"in header, table": described.header_bytes}
    if described.filters:
        parts["in filters"] = described.filter_bytes
    parts |= {
        "in vectors": described.vector_bytes,
        "in coded tokens" if described.header.is_exact else "in corrections": described.correction_bytes,
        "in stored groups": described.stored_bytes,
    }
    rows = [
        (part, f"{count(size, 'byte')}, {size / described.file_size:.1%} of the file") for part, size in parts.items()
    ]
    if described.chosen:
        rows.append(("chosen", _choice(described.chosen)))
    return [*rows, ("vectors bought", _bargain(described))] if described.n_vectors else rows


def _choice(chosen: Chosen) -> str:
    """What lanes chose from the codebook, and what that cost and saved."""
    found = f"{count(chosen.lanes, 'lane')}, {chosen.entries} different, {chosen.spent:,.0f} bits spent"
    if chosen.saved is None or chosen.balance is None:
        return found
    return f"{found}, {chosen.saved:,.0f} saved at least, balance {chosen.balance:+,.0f} bits"


def _bargain(described: Description) -> str:
    """What the vectors cost and what they saved, in bits."""
    spent = f"{count(described.vector_bits, 'bit')} spent"
    if described.vector_gain is None or described.vector_balance is None:
        return f"{spent}, what they saved is not known"
    return f"{spent}, {count(described.vector_gain, 'bit')} saved, balance {described.vector_balance:+,} bits"


def list_record(file: str, described: Description) -> dict[str, Any]:
    """The same for machines: sizes in bytes, hashes in hexadecimal."""
    header = described.header
    return {
        "file": file,
        "name": header.name,
        "ending": header.ending,
        "original_hash": header.original_hash.hex(),
        **description_record(described),
        "dictionary": header.dictionary.hex() if header.dictionary else None,
        "codebook_hash": header.codebook.hex() if header.codebook else None,
        "model": _model_record(header.model) if header.model else None,
    }


def _model_record(model: BuiltinModel | OutsideModel) -> dict[str, Any]:
    if isinstance(model, BuiltinModel):
        return {"id": model_name(model), "digest": model.digest.hex() or None}
    return {
        "id": model.model_id,
        "revision": model.revision,
        "fingerprint": model.fingerprint.hex(),
        "tokenizer_hash": model.tokenizer_hash.hex(),
    }


def description_record(described: Description) -> dict[str, Any]:
    """Sizes in bytes, counts, what was chosen, and what the vectors bought in bits; None for what is not known."""
    header = described.header
    chosen: dict[str, Any] = {"parameters": None, "vectors": None, "codebook": None}
    if header.model:
        chosen["parameters"] = asdict(header.lanes or header.parameters)
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
    if described.chosen:
        chosen["codebook"] = asdict(described.chosen) | {"balance": described.chosen.balance}
    return {
        "original_size": described.original_size,
        "file_size": described.file_size,
        "ratio": described.ratio,
        "bits_per_byte": _or_none(described.bits_per_byte),
        "header_bytes": described.header_bytes,
        "vector_bytes": described.vector_bytes,
        "correction_bytes": described.correction_bytes,
        "filter_bytes": described.filter_bytes,
        "stored_bytes": described.stored_bytes,
        "groups": {kind.name.lower(): n for kind, n in described.kinds.items()},
        "filters": [list(names) for names in described.filters],
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
