"""The command line: from options to jobs. Heavy imports happen inside the commands."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from .. import __version__
from ..errors import UsageError, VerificationError
from .console import Console
from .details import details
from .files import STDIN, example_texts, is_compressed
from .given import destination_of, expansion, workers_of
from .models import Machine, model_finder, model_loader, samples_of, with_samples
from .options import (
    batch_option,
    cramming_options,
    destination_options,
    dictionary_option,
    download_option,
    files_argument,
    json_option,
    laboratory_options,
    level_of_environment,
    loudness_options,
    machine_options,
    model_option,
    needed_codebook_option,
    option,
    recursive_option,
    settings_option,
    workers_options,
)
from .records import Records
from .report import bench_record, print_bench, print_details, print_document, print_list
from .shell import EXIT_USAGE, Commands, each

if TYPE_CHECKING:
    from ..config import CramConfig
    from .report import Listed

PAPER_BITS = "16"  # per dimension of a vector, with --paper
HELP_SETTINGS = {"help_option_names": ["-h", "--help"]}


def _console(given: dict[str, Any]) -> Console:
    return Console(given["quiet"], given["verbose"], given["progress"])


def _machine(given: dict[str, Any]) -> Machine:
    return Machine(given["device"], given["most_memory"])


def _config(given: dict[str, Any]) -> CramConfig:
    from ..config import CramConfig

    smallest, paper = given.get("smallest", False), given.get("paper", False)
    exact = given.get("exact", False) or paper

    vectors = given["vectors"]
    if smallest and exact:
        raise UsageError("--smallest and --exact exclude each other")
    if smallest and vectors:
        raise UsageError(f"--smallest takes no vectors where they do not pay: it excludes --vectors {vectors}")
    if exact and vectors == 0:
        raise UsageError("--exact is without corrections: it excludes --vectors 0")
    if exact and given["context"]:
        raise UsageError("--exact gives a chunk nothing but its vectors: it excludes --context")
    if paper and given["bits"] not in (None, PAPER_BITS):
        raise UsageError(f"--paper has {PAPER_BITS} bits per dimension: it excludes --bits {given['bits']}")
    if given["codebook"] and (given["no_codebook"] or exact or vectors or given["ranks"] or given.get("dictionary")):
        raise UsageError("--codebook excludes --no-codebook, --exact, --vectors, --ranks and -D")
    if smallest:
        vectors = 0
    return CramConfig(
        vectors=vectors,
        effort=given["effort"] or level_of_environment() or CramConfig.effort,
        exact=exact,
        bits=PAPER_BITS if paper else given["bits"],
        context=given["context"],
        seed=given["seed"],
        batch_size=given["batch_size"],
        dtype=given["dtype"],
        ranks=given["ranks"],
        codebook=not given["no_codebook"],
    )


# -- commands --------------------------------------------------------------------------------------


@click.group("cramzip", cls=Commands, invoke_without_command=True, context_settings=HELP_SETTINGS)
@click.version_option(__version__, "-V", "--version", message="%(prog)s %(version)s")
@click.pass_context
def commands(ctx: click.Context) -> None:
    """Compress text with a frozen language model, without loss."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        ctx.exit(EXIT_USAGE)


@commands.command()
@files_argument
@destination_options
@recursive_option
@json_option
@option("keeps_name", "--name/--no-name", default=None, help="Keep the whole name, or nothing.  [default: its ending]")
@option("--strip", is_flag=True, help="Leave out what is optional, and of the hash all but 4 bytes.")
@option("--smallest", is_flag=True, help="The smallest file: --strip, and no vectors of its own.")
@option("--exact", is_flag=True, help="Nothing but vectors: they must recite the text.")
@option("--paper", is_flag=True, help="--exact with 16 bits per dimension, as in the paper.")
@dictionary_option
@cramming_options
@workers_options
@loudness_options
def compress(files: tuple[str, ...], as_json: bool, **given: Any) -> int:
    """Compress FILEs into .cram files.

    book.txt becomes book.cram, which keeps the ending; of files that differ in their ending alone, both keep their
    whole names: book.txt.cram. Without FILE, or for -, standard input is compressed to standard output. What was
    finished when a job was interrupted is kept in a hidden journal: the same command continues.

    Links and .cram files are skipped without -f. With -r folders are searched for regular files that are not hidden and
    not .cram files.
    """
    from . import jobs

    files = files or (STDIN,)
    config = _config(given)
    destination, console = destination_of(given, len(files), compresses=True), _console(given)
    records = Records(as_json, destination, files)
    samples = samples_of(given["dictionary"], given["codebook"])
    load = with_samples(model_loader(given["model"], given["revision"], _machine(given), console), samples)
    if destination.stdout and (len(files) > 1 or given["recursive"]):
        raise UsageError("a .cram file holds one original: --stdout takes one file, not several")
    naming = {None: jobs.Naming.ENDING, True: jobs.Naming.WHOLE, False: jobs.Naming.NOTHING}[given["keeps_name"]]
    strip = given["strip"] or given["smallest"] or samples.dictionary is not None
    if strip and given["keeps_name"]:
        raise UsageError("--strip, --smallest and -D leave out what is optional: they exclude --name")

    def work(file: str) -> None:
        done = jobs.Compression(destination, load, config, console, naming, strip, workers).run(file)
        records.add(file, done)
        if given["verbose"]:
            for line in details(done.described):
                console.detail(line)

    expand = expansion("compresses", lambda path: not is_compressed(path), recursive=given["recursive"])
    with workers_of(given) as workers:
        foresee = partial(destination.foresee, console)
        code = each(files, work, debug=given["debug"], expand=expand, foresee=foresee, failed=records.failed)
    records.skipped(destination.skipped)
    print_document(records.document)
    return code or destination.code_of_nothing


@commands.command()
@files_argument
@destination_options
@recursive_option
@json_option
@dictionary_option
@needed_codebook_option
@model_option
@download_option
@batch_option
@machine_options
@workers_options
@loudness_options
def decompress(files: tuple[str, ...], as_json: bool, **given: Any) -> int:
    """Restore the originals of .cram files.

    A file says which model it needs; -m only says where that is if it is not where it was.
    """
    from . import jobs

    files = files or (STDIN,)
    destination, console = destination_of(given, len(files)), _console(given)
    records = Records(as_json, destination, files)
    find = model_finder(given["model"], _machine(given), console, download=given["download"])
    samples = samples_of(given["dictionary"], given["codebook"])

    def work(file: str) -> None:
        records.add(
            file, jobs.Decompression(find, console, given["batch_size"], workers, samples).run(file, destination)
        )

    expand = expansion("decompresses", is_compressed, recursive=given["recursive"])
    with workers_of(given) as workers:
        foresee = partial(destination.foresee, console)
        code = each(files, work, debug=given["debug"], expand=expand, foresee=foresee, failed=records.failed)
    records.skipped(destination.skipped)
    print_document(records.document)
    return code or destination.code_of_nothing


@commands.command()
@files_argument
@recursive_option
@json_option
@dictionary_option
@needed_codebook_option
@model_option
@download_option
@batch_option
@machine_options
@workers_options
@loudness_options
def test(files: tuple[str, ...], as_json: bool, **given: Any) -> int:
    """Decode .cram files and write nothing."""
    from . import jobs

    console, records = _console(given), Records(as_json)
    find = model_finder(given["model"], _machine(given), console, download=given["download"])
    samples = samples_of(given["dictionary"], given["codebook"])

    def work(file: str) -> None:
        records.add(file, jobs.Decompression(find, console, given["batch_size"], workers, samples).check(file))

    expand = expansion("tests", is_compressed, recursive=given["recursive"])
    with workers_of(given) as workers:
        code = each(files or (STDIN,), work, debug=given["debug"], expand=expand, failed=records.failed)
    print_document(records.document)
    return code


@commands.command("list")
@files_argument
@json_option
@loudness_options
def list_(files: tuple[str, ...], as_json: bool, **given: Any) -> int:
    """Describe .cram files; needs no model."""
    from ..container import reading
    from .details import description_of
    from .files import label, read

    listed: list[Listed] = []
    records = Records(as_json)

    def work(file: str) -> None:
        listed.append((label(file), description_of(reading.read(read(file).data))))
        records.described(*listed[-1])

    code = each(files or (STDIN,), work, debug=given["debug"], failed=records.failed)
    print_document(records.document)
    if given["verbose"] and not as_json:
        for one in listed:
            print_details(*one)
    elif listed and not as_json:
        print_list(listed)
    return code


@commands.command()
@files_argument
@json_option
@settings_option
@cramming_options
@loudness_options
def bench(files: tuple[str, ...], as_json: bool, settings: tuple[str, ...], **given: Any) -> int:
    """Measure cramzip beside gzip, bzip2, zstd, xz, brotli and PPMd.

    Without FILE, on the texts in examples/texts. Every result is decompressed and compared.
    """
    from . import jobs
    from .bench import config_of, totals
    from .files import label, read
    from .rivals import hint

    config, console = _config(given), _console(given)
    samples = samples_of(None, given["codebook"])
    load = with_samples(model_loader(given["model"], given["revision"], _machine(given), console), samples)
    texts: list[tuple[str, bytes]] = []

    def work(file: str) -> None:
        texts.append((label(file), bytes(read(file).data)))

    if code := each(files or example_texts(), work, debug=given["debug"]):
        return code
    if missing := hint():
        console.say(missing)
    measurements = jobs.bench(texts, load, config, settings, console)
    if as_json:
        measured = dict.fromkeys(one.setting for one in measurements if one.setting)
        configs = {setting: config_of(setting, config) for setting in measured}
        click.echo(json.dumps(bench_record(measurements, load(), configs), indent=2))
    else:
        several = len({one.file for one in measurements}) > 1
        print_bench([*measurements, *(totals(measurements) if several else [])], load())
    return 0 if all(one.intact for one in measurements if one.setting) else VerificationError.exit_code


@commands.command()
@files_argument
@model_option
@laboratory_options
@batch_option
@machine_options
@loudness_options
def capacity(files: tuple[str, ...], **given: Any) -> int:
    """Measure how much text fits into one vector of a model.

    The experiments of Kuratov et al. 2025 and some more, with passages of novels, random words, and FILEs. Prints
    tables. What is measured is kept in the folder: the same command continues where it was interrupted. With
    --save-codebook it learns, instead, vectors that texts like FILEs may begin with.
    """
    from ..lm.models import as_torch
    from ..lm.packages import torch_needed_by

    with torch_needed_by("the laboratory"):
        from . import capacity as command
    if given["paper"]:
        given |= {name: value for name, value in command.PAPER_GRID.items() if not _is_given(name)}
    console, folder = _console(given), Path(given["output"])
    if given["save_codebook"]:
        _learn_codebook(files, given, console)
        return 0
    only_plot = given["plot"] and not (given["model"] or given["experiments"] or given["save_profile"])
    if not only_plot:
        load = model_loader(given["model"], given["revision"], _machine(given), console)
        request = command.Request(
            given["experiments"] or ("capacity",),
            command.plan_of(given),
            command.Sources(given["books"], given["new"], files, given["kinds"]),
            given["learning_rate"],
            given["save_profile"],
        )
        command.measure(lambda: as_torch(load()), request, folder, console, batch_size=given["batch_size"])
    click.echo(command.report(folder, console, plot=given["plot"]), nl=False)
    return 0


def _learn_codebook(files: tuple[str, ...], given: dict[str, Any], console: Console) -> None:
    from .learning import Wanted, learn

    if given["experiments"] or given["save_profile"] or given["plot"] or given["paper"]:
        raise UsageError("--save-codebook measures nothing: it excludes --experiment, --save-profile, --plot, --paper")
    wanted = Wanted(files, Path(given["save_codebook"]), given["entries"], given["minutes"])
    learn(model_loader(given["model"], given["revision"], _machine(given), console), wanted, console)


def _is_given(name: str) -> bool:
    """Whether an option of this command stands on the command line."""
    return click.get_current_context().get_parameter_source(name) == ParameterSource.COMMANDLINE
