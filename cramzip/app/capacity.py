"""The laboratory's command, without its options: measure, draw, tabulate, save a profile."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from ..errors import InputOutputError, UsageError
from ..laboratory import figures
from ..laboratory.experiments import (
    CONTEXTS,
    EXPERIMENTS,
    LEARNING_RATES,
    LESSONS,
    PAPER_VECTORS,
    best_rate,
    bits_per_vector,
    origin,
)
from ..laboratory.forecast import forecast
from ..laboratory.lab import Laboratory, Row
from ..laboratory.published import PAPER_LENGTHS
from ..laboratory.store import Record, Store
from ..laboratory.tables import BRIEF_HEADINGS, capacity_tables
from ..laboratory.texts import BOOKS, FILES, NEW, RANDOM, Document, Sampling, Text, sample, shipped_books
from ..laboratory.trials import Plan
from ..lm import profiles
from ..lm.frozen import FrozenLM
from ..whole import write_whole
from . import files
from .console import Console, at_terminal, human
from .tables import Table

TRIALS, FINDINGS, TABLE = "trials.jsonl", "findings.jsonl", "table.md"
LONG = 600  # seconds; work that takes longer is told before it begins
LEAST_FORETOLD = 20_000  # steps of all texts: for less, nobody is kept waiting by a forecast
PAPER_GRID: dict[str, Any] = {  # of table 1 and figure 4: 50 texts of each kind, 5,000 steps
    "experiments": ("capacity", "vectors"),
    "samples": 50,
    "lengths": (),
    "vectors": (),
    "steps": 5000,
}


@dataclass(frozen=True)
class Sources:
    """Paths of the texts of each kind; without `books` those that are shipped. Random words come of themselves."""

    books: tuple[str, ...] = ()
    new: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()  # all that there are texts of


def plan_of(given: Mapping[str, Any]) -> Plan:
    """A plan from options, but for the learning rate; lists without numbers stand for the paper's."""

    def listed(name: str, default: tuple[int, ...], paper: tuple[int, ...]) -> tuple[int, ...]:
        return default if given[name] is None else given[name] or paper

    return Plan(
        given["samples"],
        listed("lengths", Plan.lengths, PAPER_LENGTHS),
        listed("vectors", Plan.vectors, PAPER_VECTORS),
        given["steps"],
        given["paper_steps"],
        given["seed"],
        given["bits"],
    )


@dataclass(frozen=True)
class Request:
    """What is to be measured of a model. Without a `learning_rate`, that of its profile is taken, or else looked for
    before anything else.
    """

    experiments: Sequence[str]
    plan: Plan
    sources: Sources
    learning_rate: float | None = None
    save_profile: bool = False


def measure(
    load_model: Callable[[], FrozenLM],
    request: Request,
    folder: Path,
    console: Console,
    *,
    batch_size: int | None = None,
) -> None:
    """Make the experiments, as far as their trials are not in the folder yet. Raises UsageError, InputOutputError."""
    documents = _documents(request.sources)
    lm = load_model()
    texts = [text for kind in documents for text in _texts(lm, kind, documents[kind], request.plan)]
    with Store(folder / TRIALS) as trials, Store(folder / FINDINGS) as findings:
        session = _Session(lm, texts, trials, findings, console, batch_size)
        rate = _learning_rate(session, request)
        console.say(f"learning rate: {rate:g}")
        _foretell(session, replace(request.plan, learning_rate=rate), request.experiments)
        for name in request.experiments:
            if name != LEARNING_RATES:
                session.make(name, replace(request.plan, learning_rate=rate))
        if request.save_profile:
            _save_profile(session, documents)


def _foretell(session: _Session, plan: Plan, experiments: Sequence[str]) -> None:
    """Say how long it will take and how much memory, if that is long."""
    if plan.samples * plan.steps < LEAST_FORETOLD:
        return
    found = forecast(session.laboratory("forecast", plan), experiments)
    if found and found.seconds > LONG:
        memory = f", and up to {human(found.memory)} of memory" if found.memory else ""
        session.console.say(f"{session.lm.model_id}: about {found.seconds / 3600:.1f} hours{memory}")


@dataclass(frozen=True)
class _Session:
    """The measuring of one model: its texts, what is known already, and whom to tell."""

    lm: FrozenLM
    texts: Sequence[Text]
    trials: Store
    findings: Store
    console: Console
    batch_size: int | None

    def laboratory(self, name: str, plan: Plan) -> Laboratory:
        """A laboratory that tells the user what it is doing, under a name."""
        tell = partial(self._tell, name)
        return Laboratory(self.lm, self.texts, plan, self.trials, batch_size=self.batch_size, tell=tell)

    def _tell(self, name: str, said: str) -> None:
        self.console.say(f"{name}: {said}")

    def make(self, name: str, plan: Plan) -> list[Row]:
        """Make one experiment, and keep what it finds."""
        start = time.perf_counter()
        rows = EXPERIMENTS[name](self.laboratory(name, plan))
        self.findings.add(_finding(self.lm, name, plan, rows))
        self._tell(name, f"done, {time.perf_counter() - start:.0f} s")
        return rows


def _learning_rate(session: _Session, request: Request) -> float:
    """What is asked for, or what the profile says, or what is best of several."""
    rate, looks = request.learning_rate, LEARNING_RATES in request.experiments
    known = profiles.find(session.lm.fingerprint)
    if rate is None and known and not looks:
        rate = known.learning_rate
    if rate is None or looks:
        best = best_rate(session.make(LEARNING_RATES, request.plan))
        rate = rate or best
    return rate


def _save_profile(session: _Session, documents: Mapping[str, list[Document]]) -> None:
    """Save what was measured, and the origin, which is measured now. Raises UsageError."""
    lm = session.lm
    capacity = _capacity(lm, session.findings)
    plan, kind = _plan_of(capacity), capacity["rows"][0]["kind"]
    if kind not in documents:
        raise UsageError(f"--save-profile: the capacity was measured with {kind}, which --kinds leaves out")
    lessons = _texts(lm, kind, documents[kind], plan, LESSONS)[plan.samples :]
    found = origin(session.laboratory("lessons", plan), lessons)
    path = profiles.save(replace(_profile(lm, capacity), origin=found))
    session.console.say(f"{lm.model_id} -> {path}")


def report(folder: Path, console: Console, *, plot: bool) -> str:
    """Tables of everything that the folder holds, also written into it in Markdown, as is what is not for a terminal;
    and its figures.
    """
    if not (folder / FINDINGS).exists():
        raise InputOutputError(f"{folder}: nothing has been measured into this folder")
    with Store(folder / FINDINGS, read_only=True) as findings:
        found = list(findings)
    tables = list(capacity_tables(found))
    markdown = "\n\n".join(table.markdown for table in tables) + "\n"
    write_whole(folder / TABLE, markdown.encode())
    if plot:
        for path in figures.draw(found, folder):
            console.detail(f"{path}")
        console.say(f"figures are in {folder}")
    if not at_terminal(sys.stdout):
        return markdown
    lines: list[str] = []
    for table in tables:
        shown = Table(BRIEF_HEADINGS, frozenset(BRIEF_HEADINGS[1:]))
        for row in chain.from_iterable(line.brief() for line in table.lines):
            shown.add(*row)
        lines += [f"{table.title}:", "", *shown.shown(), ""]
    return "\n".join(lines)


def _documents(sources: Sources) -> dict[str, list[Document]]:
    """The documents of each kind that is wanted and that there are texts of."""
    given = {BOOKS: sources.books, NEW: sources.new, FILES: sources.files}
    wanted = sources.kinds or (BOOKS, RANDOM, *(kind for kind in (NEW, FILES) if given[kind]))
    for kind in wanted:
        if kind in (NEW, FILES) and not given[kind]:
            raise UsageError(f"--kinds: there are no texts of the kind {kind!r}")
    documents: dict[str, list[Document]] = {}
    for kind in wanted:
        paths = given.get(kind, ())
        documents[kind] = [(Path(path).name, bytes(files.read(path).data)) for path in paths]
        if kind == BOOKS and not paths:
            documents[kind] = shipped_books()
    return documents


def _texts(lm: FrozenLM, kind: str, documents: list[Document], plan: Plan, n_more: int = 0) -> list[Text]:
    """The texts of a plan, and some more after them."""
    n_before = max(CONTEXTS) if lm.context is None else min(max(CONTEXTS), lm.context // 4)
    return sample(lm, kind, documents, Sampling(plan.samples + n_more, max(plan.lengths), n_before, plan.seed))


def _finding(lm: FrozenLM, name: str, plan: Plan, rows: list[Row]) -> Record:
    return {
        "key": {"experiment": name, "model": lm.fingerprint.hex()},
        "model": lm.model_id,
        "name": _short_name(lm.model_id),
        "width": lm.width,
        "vocabulary_size": lm.vocabulary_size,
        "n_layers": lm.n_layers,
        "n_parameters": lm.n_parameters,
        "plan": asdict(plan),
        "measured_with": _measured_with(lm),
        "rows": rows,
    }


def _measured_with(lm: FrozenLM) -> Record:
    return {
        "cramzip": __version__,
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "device": torch.cuda.get_device_name() if lm.device == "cuda" else lm.device,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def _short_name(model_id: str) -> str:
    """`SmolLM2-135M` for `hf:HuggingFaceTB/SmolLM2-135M` and `local:SmolLM2-135M.gguf`."""
    return model_id.partition(":")[2].rpartition("/")[2].removesuffix(".gguf") or model_id


def _capacity(lm: FrozenLM, findings: Store) -> Record:
    """What was found of a model's capacity. Raises UsageError where it was not measured, or is none."""
    capacity = findings.get({"experiment": "capacity", "model": lm.fingerprint.hex()})
    if capacity is None:
        raise UsageError("--save-profile needs the capacity of the model: add --experiment capacity")
    if not bits_per_vector(capacity["rows"]):
        raise UsageError("--save-profile: no vector has recited any text, there is nothing to save")
    return capacity


def _plan_of(finding: Record) -> Plan:
    """The plan that something was found with."""
    values = finding["plan"].items()
    plan: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in values}
    return Plan(**plan)


def _profile(lm: FrozenLM, capacity: Record) -> profiles.Profile:
    """What was found of a model, but for the origin."""
    return profiles.Profile(
        fingerprint=lm.fingerprint.hex(),
        model=lm.model_id,
        bits_per_vector=round(bits_per_vector(capacity["rows"]), 1),
        learning_rate=capacity["plan"]["learning_rate"],
        embedding_scale=lm.embedding_scale,
        noise=lm.noise,
        measured=capacity["measured_with"]
        | {name: capacity["plan"][name] for name in ("samples", "steps", "bits", "seed")},
    )
