"""One input, from start to end: read, check, compress or decompress, verify, put in place.

The commands of the command line, without their options: each function does its work on one file, tells a
Console about it, and raises a CramError or OSError if it cannot.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .. import __version__
from ..coding.exact_decode import chosen_by
from ..coding.original import Original
from ..coding.packed import packed_format
from ..coding.restore import Runner, needs_dictionary, require_given, restore, verify
from ..config import CramConfig
from ..container import reading
from ..container.description import Chosen, Description, describe
from ..container.endings import ending_of
from ..container.opened import Opened
from ..container.records import name_fault
from ..errors import DamagedFileError, UsageError, VerificationError, WrongModelError
from ..lm.exact import ExactLM
from . import files
from .console import Console, at_terminal, closing_line, count
from .destination import Destination, place
from .estimate import tell_compress, tell_decompress
from .files import Source, label
from .journal import Journal
from .models import NONE, FindModel, LoadModel, Samples, made_ready

if TYPE_CHECKING:
    from ..coding.encode import Writer
    from ..lm.models import LM
    from ..workers.base import Workers
    from .bench import Measurement


def n_jobs(workers: Workers | None) -> int:
    """How many times as much work is done at once as by one process, which uses two cores."""
    return max(1, min(getattr(workers, "n", None) or 1, os.cpu_count() or 1) // 2)


class Done(NamedTuple):
    """What became of one input: where the result is (None: nowhere), what the `.cram` file says, how long it took."""

    place: str | None
    described: Description
    seconds: float


class Naming(Enum):
    """What a file keeps of the name of its original."""

    NOTHING = "nothing"
    ENDING = "ending"
    WHOLE = "whole"


# -- compress --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Compression:
    """What `c` does with each of its inputs. `naming` and `strip`: what of the optional is in the file."""

    destination: Destination
    load_model: LoadModel
    config: CramConfig
    console: Console
    naming: Naming = Naming.ENDING
    strip: bool = False
    workers: Workers | None = None

    def run(self, argument: str) -> Done:
        """Make a `.cram` file of one input, decode it again and compare, and only then put it in its place."""
        start = time.perf_counter()
        destination, console = self.destination, self.console
        to_stdout = destination.output is None and (destination.stdout or argument == files.STDIN)
        if to_stdout and at_terminal(sys.stdout) and not destination.force:
            raise UsageError("compressed data is not for terminals: redirect it, name a file with -o, or use -f")
        destination.check_place(argument)
        source = files.read(argument)
        name = source.name if self.naming is Naming.WHOLE else None
        name = None if name is None or name_fault(name) else name
        path, ending = self._place(source)
        overwrite = destination.may_overwrite(path, source, console)
        from ..coding.encode import Writer

        # Workers are asked before a model is loaded: they may not be there.
        conditions = self.workers.conditions if self.workers else None
        writer = Writer(self.load_model(), self.config)
        made_ready(writer.lm, console)
        tell_compress(console, label(argument), source.data, writer.lm, lambda: n_jobs(self.workers))
        with (
            _journal(path, source, self._identity(source, writer, conditions), console) as journal,
            console.progress(label(argument), source.size, done=journal.resumed_bytes, passes=2) as progress,
        ):
            for segment in writer.segments(
                source.data, finished=journal.segments, progress=progress, workers=self.workers
            ):
                journal.append(segment)
            with destination.output_at(path, overwrite=overwrite) as output:
                original = Original(source.data, source.sha256, name, self.strip, ending)
                gain = journal.gain
                writer.write(output.file, original, journal, gain)
                file = reading.read(files.map_file(output.file))
                verify(file, source.data, Runner(writer.lm, self.config.batch_size, self.workers, progress))
                source.check_unchanged("nothing was written")
                output.commit(source.status)
        destination.finish(path, output, source)
        described = replace(describe(file), chosen=_chosen(file, writer.lm, gain))
        seconds = time.perf_counter() - start
        told = closing_line(described, seconds, packed_format(source.data))
        console.say(f"{label(argument)} -> {place(path)}: {told}")
        return Done(place(path), described, seconds)

    def _place(self, source: Source) -> tuple[Path | None, str | None]:
        """Where the file goes, and the ending that its header keeps, so that its own name need not."""
        ending = None
        if source.path and source.status and self.naming is not Naming.NOTHING:
            ending = ending_of(source.path.name)
        if ending and source.path and self.destination.must_keep_whole_name(source.path):
            ending = None
        path = self.destination.path_for(source, lambda path: files.compressed_path(path, whole_name=ending is None))
        return path, ending

    def _identity(self, source: Source, writer: Writer, conditions: str | None) -> bytes:
        """A digest of everything that decides which groups come out."""
        model = writer.lm
        facts = {
            "source": source.sha256.hex(),
            "model": model.fingerprint.hex(),
            "tokenizer": model.tokenizer_hash.hex(),
            "config": asdict(self.config),
            "cramzip": __version__,
            "workers": conditions,
            **writer.method.conditions,
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).digest()


def _chosen(file: Opened, lm: LM, saved: float) -> Chosen | None:
    return chosen_by(file, lm, saved) if isinstance(lm, ExactLM) else None


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


# -- decompress and test ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Decompression:
    """What `d` and `t` do with each of their inputs."""

    find_model: FindModel
    console: Console
    batch_size: int | None = None
    workers: Workers | None = None
    samples: Samples = NONE

    def run(self, argument: str, destination: Destination) -> Done:
        """Write the original of one `.cram` file; nothing appears unless all of it is right."""
        start = time.perf_counter()
        destination.check_place(argument)
        source = files.read(argument)
        file = reading.read(source.data)
        path = destination.path_for(source, lambda path: files.original_path(path, file.header))
        overwrite = destination.may_overwrite(path, source, self.console)
        model = self._model(file)
        with destination.output_at(path, overwrite=overwrite) as output:
            self._restore(argument, file, model, output.file.write)
            source.check_unchanged("nothing was written")
            output.commit(source.status)
        destination.finish(path, output, source)
        return self._done(f"{label(argument)} -> {place(path)}: ", place(path), file, start)

    def check(self, argument: str) -> Done:
        """Decode one `.cram` file and throw the result away. Raises DamagedFileError if `run` would."""
        start = time.perf_counter()
        file = reading.read(files.read(argument).data)
        self._restore(argument, file, self._model(file), lambda _: None)
        return self._done(f"{label(argument)}: ok, ", None, file, start)

    def _model(self, file: Opened) -> LM | None:
        header = file.header
        if header.dictionary is not None and self.samples.dictionary is None:  # before a model is loaded
            raise WrongModelError(f"Dictionary_Hash: {needs_dictionary(header.dictionary)}")
        if header.codebook is not None:
            require_given(header.codebook, self.samples.codebook_hash)
        model = self.find_model(header.model) if header.model else None
        from ..codec import model_for

        found = model_for(header, model, self.samples.dictionary, self.samples.codebook)
        if found is not None:
            made_ready(found, self.console)
        return found

    def _restore(self, argument: str, file: Opened, lm: LM | None, take: Callable[[bytes], object]) -> None:
        tell_decompress(self.console, label(argument), describe(file), lm, lambda: n_jobs(self.workers))
        with self.console.progress(label(argument), file.header.original_size) as progress:
            for content in restore(file, Runner(lm, self.batch_size, self.workers, progress)):
                take(content)

    def _done(self, what: str, where: str | None, file: Opened, start: float) -> Done:
        seconds = time.perf_counter() - start
        self.console.say(f"{what}{count(file.header.original_size, 'byte')}, {seconds:.1f} s")
        return Done(where, describe(file), seconds)


# -- bench -----------------------------------------------------------------------------------------


def bench(
    texts: Sequence[tuple[str, bytes]],
    load_model: LoadModel,
    config: CramConfig,
    settings: Sequence[str],
    console: Console,
) -> list[Measurement]:
    """Measure some texts (name, content) in some of bench.SETTINGS, or in those that suit their sizes."""
    from . import bench as measure

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
