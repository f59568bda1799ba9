"""The options of the command line."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

from ..container.records import BITS
from ..errors import UsageError
from .values import (
    EXPERIMENT_NAMES,
    KIND_NAMES,
    bytes_of,
    experiments_of,
    inputs_of,
    kinds_of,
    not_empty,
    numbers_of,
    ray_address_of,
    settings_of,
)

HELP = "--help"
MODEL_VARIABLE, LEVEL_VARIABLE, CODEBOOK_VARIABLE = "CRAMZIP_MODEL", "CRAMZIP_LEVEL", "CRAMZIP_CODEBOOK"
LEVELS = range(1, 10)
LEVEL_NAMES = {1: ("-1", "--fast"), 9: ("-9", "--best")}
GROUPS = (  # of options in the help of a command; what is in none of them comes before
    ("Results", ("output", "stdout", "force", "keep", "recursive", "as_json")),
    ("What a file keeps", ("keeps_name", "strip", "dictionary")),
    (
        "Size against time",
        (
            "effort",
            "smallest",
            "exact",
            "paper",
            "vectors",
            "codebook",
            "no_codebook",
            "bits",
            "context",
            "seed",
            "dtype",
            "ranks",
        ),
    ),
    ("Model", ("model", "revision", "download")),
    ("Machine", ("batch_size", "device", "most_memory", "jobs", "ray")),
    ("Messages", ("quiet", "verbose", "progress", "debug", HELP)),
)

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


class EffortOption(click.Option):
    """One of -1 to -9; the first stands for all of them in the help."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        if self.opts[0] != "-1":
            return None
        return (
            "-1 ... -9",
            f"Effort: 1 is fastest (--fast), 9 tries hardest (--best).  [default: {LEVEL_VARIABLE}, or 5]",
        )


def level_of_environment() -> int | None:
    """The effort that the environment asks for. Raises UsageError."""
    value = os.environ.get(LEVEL_VARIABLE, "")
    if value and value not in map(str, LEVELS):
        raise UsageError(f"{LEVEL_VARIABLE}: expected {LEVELS[0]} to {LEVELS[-1]}, found {value!r}")
    return int(value) if value else None


def options(*several: Callable[[Decorated], Decorated]) -> Callable[[Decorated], Decorated]:
    """Several options as one decorator, in the order in which the help shows them."""

    def decorate(command: Decorated) -> Decorated:
        for option in reversed(several):
            command = option(command)
        return command

    return decorate


option = click.option
path_type = click.Path(readable=False)  # any name will do; shells complete it
files_argument = click.argument("files", nargs=-1, metavar="[FILE]...", callback=inputs_of, type=path_type)
MODEL_NAMES, MODEL_HELP = ("-m", "--model"), "Hugging Face id, model folder or .gguf file."
model_option = option(*MODEL_NAMES, metavar="MODEL", type=path_type, callback=not_empty, help=MODEL_HELP)
machine_options = options(
    option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda", "mps"]),
        default="auto",
        show_default=True,
        help="Device to compute on.",
    ),
    option(
        "-M",
        "--memory",
        "--memlimit",
        "most_memory",
        metavar="SIZE",
        callback=bytes_of,
        help="Refuse a model that would take more memory: 500M, 2G.",
    ),
)
batch_option = option(
    "--batch-size",
    type=click.IntRange(1),
    metavar="N",
    help="Chunks that are crammed, or groups that are decoded, at once.",
)
workers_options = options(
    option(
        "-j",
        "-T",
        "--jobs",
        "--threads",
        type=click.IntRange(0, 1024),
        metavar="N",
        help="Processes that share the work; 0: as many as there are GPUs, or else cores.  [default: 1]",
    ),
    option("--ray", metavar="ADDRESS", callback=ray_address_of, help="Share the work with this Ray cluster."),
)
download_option = option("--download", is_flag=True, help="Fetch a missing model from Hugging Face.")
dictionary_option = option(
    "-D",
    "--dictionary",
    metavar="FILE",
    type=path_type,
    callback=not_empty,
    help="A sample of such texts, for small files; d and t need the same.",
)


def codebook_option(**more: Any) -> Callable[[Decorated], Decorated]:
    """A file that `capacity --save-codebook` has written."""
    return option("--codebook", metavar="FILE", type=path_type, callback=not_empty, **more)


needed_codebook_option = codebook_option(
    envvar=CODEBOOK_VARIABLE, help=f"The codebook of files that need one.  [default: {CODEBOOK_VARIABLE}]"
)
recursive_option = option("-r", "--recursive", is_flag=True, help="Work on what is in folders, and in theirs.")
json_option = option("--json", "as_json", is_flag=True, help="Print one JSON document.")

settings_option = option(
    "--settings",
    multiple=True,
    callback=settings_of,
    metavar="NAME",
    help="Settings of cramzip: default, smallest, exact, or several with commas.  [default: default, smallest, and for "
    "texts up to 4 KiB exact, which takes long]",
)

loudness_options = options(
    option("-q", "--quiet", is_flag=True, help="Errors only."),
    option("-v", "--verbose", is_flag=True, help="Say more."),
    option("--progress/--no-progress", default=None, help="Progress on stderr.  [default: on a terminal]"),
    option("--debug", is_flag=True, help="Show where an error came from."),
)
destination_options = options(
    option("-o", "--output", metavar="PATH", type=path_type, callback=not_empty, help="Write to this file."),
    option("-c", "--stdout", "--to-stdout", "stdout", is_flag=True, help="Write to standard output."),
    option("-f", "--force", is_flag=True, help="Overwrite files; write to a terminal."),
    option("keep", "-k/", "--keep/--rm", default=True, help="Keep the source (default), or remove it after success."),
)
cramming_options = options(
    option(
        *MODEL_NAMES,
        metavar="MODEL",
        type=path_type,
        envvar=MODEL_VARIABLE,
        callback=not_empty,
        help=f"{MODEL_HELP}  [default: {MODEL_VARIABLE}, or the built-in one]",
    ),
    option("--revision", metavar="REV", callback=not_empty, help="Commit, tag or branch of a Hugging Face model."),
    *(option(*LEVEL_NAMES.get(n, (f"-{n}",)), "effort", flag_value=n, type=int, cls=EffortOption) for n in LEVELS),
    option(
        "--vectors",
        type=click.IntRange(0, 4096),
        metavar="M",
        help="Vectors per chunk or lane, which seldom pay; 0: none.  [default: 0; 1 with ranks, --exact]",
    ),
    codebook_option(
        help="A file of vectors that lanes may begin with; d and t need the same.  [default: the model's own]"
    ),
    option("--no-codebook", is_flag=True, help="Begin no lane with vectors of a codebook, also where that pays."),
    option(
        "--bits",
        type=click.Choice(list(BITS)),
        help="Bits per dimension of a vector.  [default: 1; 2 with --exact]",
    ),
    option(
        "--context",
        type=click.IntRange(0, 2**16),
        metavar="N",
        help="Tokens before a chunk that it sees, with ranks.  [default: by model]",
    ),
    option(
        "--seed",
        type=click.IntRange(0),
        default=0,
        show_default=True,
        metavar="N",
        help="Another start for the optimiser.",
    ),
    batch_option,
    machine_options,
    option(
        "--dtype",
        type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
        default="auto",
        show_default=True,
        help="Precision of the search for vectors; decoding is float32, or exact.",
    ),
    option("--ranks", is_flag=True, help="Ranks of a model in floats, also where exact arithmetic can run it."),
)

laboratory_options = options(
    option("--revision", metavar="REV", callback=not_empty, help="Commit, tag or branch of a Hugging Face model."),
    option(
        "--experiment",
        "experiments",
        multiple=True,
        callback=experiments_of,
        metavar="NAME",
        help=f"{', '.join(EXPERIMENT_NAMES)}; several with commas, or all.  [default: capacity]",
    ),
    option(
        "-o",
        "--output",
        metavar="FOLDER",
        default="capacity",
        show_default=True,
        callback=not_empty,
        help="Where records, figures and tables are kept.",
    ),
    option(
        "--books",
        multiple=True,
        callback=inputs_of,
        metavar="FILE",
        help="Take books from here, not from the passages that come along.",
    ),
    option("--new", multiple=True, callback=inputs_of, metavar="FILE", help="Text that is newer than the model."),
    option(
        "--kinds",
        multiple=True,
        callback=kinds_of,
        metavar="NAMES",
        help=f"Kinds of text: {', '.join(KIND_NAMES)}.  [default: all there are texts of]",
    ),
    option(
        "--samples", type=click.IntRange(1, 1000), default=4, show_default=True, metavar="N", help="Texts of each kind."
    ),
    option("--lengths", callback=numbers_of, metavar="LIST", help="Lengths in tokens that are tried, or paper."),
    option(
        "--vectors", callback=numbers_of, metavar="LIST", help="Of experiment vectors, or paper.  [default: 1,2,4,8]"
    ),
    option(
        "--bits", type=click.Choice(list(BITS)), default="16", show_default=True, help="Bits per dimension of a vector."
    ),
    option("--steps", type=click.IntRange(1, 10**6), default=300, show_default=True, metavar="N", help="Most steps."),
    option(
        "--paper-steps",
        type=click.IntRange(1, 10**6),
        default=5000,
        show_default=True,
        metavar="N",
        help="Most steps of the paper's recipe.",
    ),
    option(
        "--learning-rate",
        type=click.FloatRange(0, 1000, min_open=True),
        metavar="R",
        help="In embedding scales per step.  [default: that of the profile, or what is found best]",
    ),
    option(
        "--seed", type=click.IntRange(0), default=0, show_default=True, metavar="N", help="Other texts, other starts."
    ),
    option(
        "--paper",
        is_flag=True,
        help="The paper's grid: capacity and vectors, its lengths, 50 texts of each kind, 5000 steps. Takes hours.",
    ),
    option("--plot", is_flag=True, help="Draw figures; without -m and --experiment, of what is in the folder already."),
    option("--save-profile", is_flag=True, help="Let `c -m MODEL` start from what was found."),
    option(
        "--save-codebook",
        metavar="FILE",
        type=path_type,
        callback=not_empty,
        help="Learn from FILEs, and what is in folders, vectors for `c --codebook`; measure nothing.",
    ),
    option(
        "--entries", type=click.IntRange(1, 1024), default=16, show_default=True, metavar="N", help="Of a codebook."
    ),
    option(
        "--minutes",
        type=click.FloatRange(0, min_open=True),
        default=30.0,
        show_default=True,
        metavar="N",
        help="To learn a codebook in.",
    ),
)
