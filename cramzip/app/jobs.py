"""One input, from start to end: read, check, compress or decompress, verify, put in place.

The commands of the command line, without their options: each function does its work on one file, tells a
Console about it, and raises a CramError or OSError if it cannot.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

import torch

from .. import __version__, codec
from ..coding.cram import CramConfig
from ..coding.encode import choose_parameters, encode, expected
from ..container import opened as payload
from ..container.description import Description
from ..container.description import describe as take_apart
from ..container.records import BuiltinModel, OutsideModel, Parameters, name_fault
from ..errors import DamagedFileError, InputOutputError, MissingModelError, UsageError, VerificationError
from ..lm.frozen import FrozenLM
from ..lm.source import ModelSource, as_commit, find, find_digest, find_named
from ..workers.base import Workers
from . import bench as measure
from . import files
from .bench import Measurement
from .console import Console, at_terminal, closing_line, count
from .files import Output, Source, label
from .journal import Journal

STDOUT_LABEL = "(stdout)"
DECIDED_BY = ("numpy", "tokenizers", "transformers", "zstandard")  # packages, besides torch, that groups depend on

LoadModel = Callable[[], FrozenLM]
ModelReference = BuiltinModel | OutsideModel
FindModel = Callable[[ModelReference], FrozenLM]


@dataclass(frozen=True)
class Destination:
    """Where results go: `output` if it is given, `stdout`, or beside the input under the name that follows from it.

    With `whole_names`, that is `book.txt.cram` and not `book.cram`. What is `written` once is not overwritten.
    """

    output: Path | None = None
    stdout: bool = False
    force: bool = False
    remove_source: bool = False
    whole_names: bool = False
    written: set[Path] = field(default_factory=set)

    def check_kept(self, path: Path) -> None:
        """Raise UsageError if the source is to be removed although nothing keeps what is written to `path`."""
        if self.remove_source and files.is_stream(path):
            raise UsageError(f"--rm is for results that are kept in a file, and {path} is none")


def model_finder(where: str | None, device: str, console: Console, *, download: bool) -> FindModel:
    """A function that loads the model a file needs, from `where` if the user says so, and keeps the last one.

    Nothing is downloaded unless `download` says so, or the user does when asked. Raises ModelError.
    """

    def locate(needed: ModelReference, may_download: bool) -> ModelSource:
        if isinstance(needed, BuiltinModel):
            return find_digest(needed.digest) if where is None else find(where, download=may_download)
        if where is None:
            return find_named(needed.model_id, needed.revision, download=may_download)
        return find(where, download=may_download, commit=as_commit(needed.revision))

    kept: dict[ModelReference, FrozenLM] = {}

    def find_model(needed: ModelReference) -> FrozenLM:
        if needed in kept:
            return kept[needed]
        try:
            source = locate(needed, download)
        except MissingModelError as missing:
            if not console.ask(f"model {missing.model_id} is not on this machine; download it from Hugging Face?"):
                raise
            source = locate(needed, True)
        wanted = needed.digest if isinstance(needed, BuiltinModel) else needed.fingerprint
        source.require(wanted)  # before anything is loaded
        kept.clear()
        kept[needed] = FrozenLM(source, device)
        return kept[needed]

    return find_model


# -- compress --------------------------------------------------------------------------------------


def compress(
    argument: str,
    destination: Destination,
    load_model: LoadModel,
    config: CramConfig,
    console: Console,
    *,
    keeps_name: bool = True,
    strip: bool = False,
    workers: Workers | None = None,
) -> Description:
    """Make a `.cram` file of one input, decode it again and compare, and only then put it in its place."""
    start = time.perf_counter()
    to_stdout = destination.output is None and (destination.stdout or argument == files.STDIN)
    if to_stdout and at_terminal(sys.stdout) and not destination.force:
        raise UsageError("compressed data is not for terminals: redirect it, name a file with -o, or use -f")
    source = files.read(argument)
    name = source.name if keeps_name and not strip and source.name and not name_fault(source.name) else None
    whole_name = name is None or destination.whole_names
    path = _target(source, destination, lambda path: files.compressed_path(path, whole_name=whole_name))
    overwrite = _may_write(path, source, destination, console)
    model = load_model()
    parameters = choose_parameters(model, config)
    with _journal(path, source, _identity(source, model, config, parameters, workers), console) as journal:
        with console.progress(label(argument), source.size, done=journal.resumed_bytes) as progress:
            finished = journal.segments
            for segment in encode(
                source.data, model, config, parameters, finished=finished, progress=progress, workers=workers
            ):
                journal.append(segment)
        with Output(path, overwrite=overwrite) as output:
            codec.write(
                output.file,
                source.data,
                journal,
                source.sha256,
                model,
                config,
                parameters,
                journal.gain,
                name=name,
                strip=strip,
            )
            blob = files.map_file(output.file)
            with console.progress("verifying", source.size) as progress:
                codec.verify(blob, source.data, model, batch_size=config.batch_size, progress=progress, workers=workers)
            described = take_apart(blob)
            source.check_unchanged("nothing was written")
            output.commit(source.status)
    _finish(path, output, source, destination)
    seconds = time.perf_counter() - start
    console.say(f"{label(argument)} -> {_place(path)}: {closing_line(described, seconds)}")
    return described


@contextmanager
def _journal(path: Path | None, source: Source, identity: bytes, console: Console) -> Iterator[Journal]:
    """The journal of this job. It stays behind if the job is interrupted and it can be of use."""
    beside = None if path is None or files.is_stream(path) else files.beside(path, ".journal")
    journal = Journal(beside, identity)
    if journal.discarded:
        console.say(
            f"{path}: a journal of other input, options, versions, threads or profiles was there; starting anew"
        )
    if journal.resumed_bytes:
        console.say(f"{path}: continuing after {journal.resumed_bytes:,} of {count(source.size, 'byte')}")
    try:
        yield journal
    except BaseException as error:
        useless = isinstance(error, VerificationError | DamagedFileError) or not source.is_unchanged
        remove = useless or not len(journal)
        journal.close(remove=remove)
        if beside is not None and not remove:
            console.say(f"{path}: finished groups are kept in {beside.name}; the same command continues from there")
        raise
    journal.close(remove=True)


def _identity(
    source: Source, model: FrozenLM, config: CramConfig, parameters: Parameters, workers: Workers | None
) -> bytes:
    """A digest of everything that decides which groups come out."""
    facts = {
        "source": source.sha256.hex(),
        "model": model.fingerprint.hex(),
        "tokenizer": model.tokenizer_hash.hex(),
        "config": asdict(config),
        "parameters": asdict(parameters),
        "device": model.device,
        "cramzip": __version__,
        "torch": torch.__version__,
        "packages": {package: version(package) for package in DECIDED_BY},
        "threads": torch.get_num_threads(),
        "workers": workers.conditions if workers else None,
        "expected": expected(model) if config.vectors else None,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).digest()


# -- decompress, test, list ------------------------------------------------------------------------


def decompress(
    argument: str,
    destination: Destination,
    find_model: FindModel,
    console: Console,
    *,
    batch_size: int | None = None,
    workers: Workers | None = None,
) -> None:
    """Write the original of one `.cram` file; nothing appears unless all of it is right."""
    start = time.perf_counter()
    source = files.read(argument)
    header = payload.check(source.data).header
    path = _target(source, destination, lambda path: files.original_path(path, header.name))
    overwrite = _may_write(path, source, destination, console)
    model = find_model(header.model) if header.model else None
    with Output(path, overwrite=overwrite) as output:
        with console.progress(label(argument), header.original_size) as progress:
            for content in codec.decode(source.data, model, batch_size=batch_size, progress=progress, workers=workers):
                output.file.write(content)
        source.check_unchanged("nothing was written")
        output.commit(source.status)
    _finish(path, output, source, destination)
    seconds = time.perf_counter() - start
    console.say(f"{label(argument)} -> {_place(path)}: {count(header.original_size, 'byte')}, {seconds:.1f} s")


def check(
    argument: str,
    find_model: FindModel,
    console: Console,
    *,
    batch_size: int | None = None,
    workers: Workers | None = None,
) -> None:
    """Decode one `.cram` file and throw the result away. Raises DamagedFileError if `decompress` would."""
    start = time.perf_counter()
    source = files.read(argument)
    header = payload.check(source.data).header
    model = find_model(header.model) if header.model else None
    with console.progress(label(argument), header.original_size) as progress:
        for _ in codec.decode(source.data, model, batch_size=batch_size, progress=progress, workers=workers):
            pass
    seconds = time.perf_counter() - start
    console.say(f"{label(argument)}: ok, {count(header.original_size, 'byte')}, {seconds:.1f} s")


# -- bench -----------------------------------------------------------------------------------------


def bench(
    texts: Sequence[tuple[str, bytes]],
    load_model: LoadModel,
    config: CramConfig,
    settings: Sequence[str],
    console: Console,
) -> list[Measurement]:
    """Measure some texts (name, content) in some of bench.SETTINGS, or in those that suit their sizes."""
    sizes = [len(data) for _, data in texts]
    chosen = [measure.settings_for(size, settings) for size in sizes]
    if left_out := sum(measure.EXACT not in one for one in chosen if not settings):
        console.say(
            f"{count(left_out, 'text')} of more than {count(measure.SMALL_TEXT, 'byte')}: not measured with --exact, "
            "which takes long (--settings exact does it)"
        )
    model = load_model()
    with console.progress(
        "bench", sum(2 * size * len(one) for size, one in zip(sizes, chosen, strict=True))
    ) as progress:
        return measure.bench(texts, model, config, settings, progress=progress)


# -- where results go ------------------------------------------------------------------------------


def _target(source: Source, destination: Destination, follow: Callable[[Path], Path]) -> Path | None:
    """The path to write to; None is standard output."""
    if destination.output is not None:
        return destination.output
    if destination.stdout or source.path is None:
        return None
    return follow(source.path)


def _place(path: Path | None) -> str:
    """How messages call what is written to."""
    return STDOUT_LABEL if path is None else str(path)


def _may_write(path: Path | None, source: Source, destination: Destination, console: Console) -> bool:
    """Whether an existing file may be overwritten. Raises InputOutputError if nothing may be written at all."""
    if path is None:
        if sys.stdout is None:
            raise InputOutputError("standard output is closed")
        return False
    destination.check_kept(path)
    if path.absolute() in destination.written:
        raise InputOutputError(f"{path} was just made of another file; say where to write with -o")
    can_ask = source.path is not None
    return files.check_target(path, source, force=destination.force, ask=console.ask if can_ask else lambda _: False)


def _finish(path: Path | None, output: Output, source: Source, destination: Destination) -> None:
    """What is left to do when a result is in its place. The source is removed only if a file keeps the result."""
    if path is not None:
        destination.written.add(path.absolute())
    if destination.remove_source and output.path is not None and source.path is not None and source.status is not None:
        source.check_unchanged("it is not removed")
        source.path.unlink()
