"""How commands behave in a shell: short names, errors in one line, exit codes."""

from __future__ import annotations

import sys
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import click

from ..errors import CramError, DamagedFileError
from .console import Console
from .files import label
from .options import GROUPS, HELP
from .spelling import SPELLINGS, with_command

EXIT_FAILURE, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130
ALIASES = {"c": "compress", "d": "decompress", "t": "test", "l": "list"}
OUT_OF_MEMORY = ("MemoryError", "OutOfMemoryError")  # of Python and of torch, which is not imported here


def report(error: BaseException, subject: str, *, debug: bool) -> int:
    """Tell of `error` in one line, and return the exit code of its class."""
    if debug:
        traceback.print_exception(error)
    code = error.exit_code if isinstance(error, CramError) else EXIT_FAILURE
    if isinstance(error, OSError) and error.filename is not None and str(error.filename) != subject:
        subject = f"{subject}: {error.filename}" if subject else str(error.filename)
    Console().complain(subject, explain(error))
    return code


def explain(error: BaseException) -> str:
    """What an error says, in one line."""
    first_line = (str(error).splitlines() or [""])[0]
    if isinstance(error, DamagedFileError):
        return f"{first_line}{error.verdict}"
    if isinstance(error, CramError):
        return first_line
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if type(error).__name__ in OUT_OF_MEMORY or "can't allocate memory" in first_line:
        return "not enough memory; a smaller --batch-size needs less"
    return f"unexpected {type(error).__name__}: {first_line} (--debug shows where)"


def each(
    arguments: Iterable[str],
    work: Callable[[str], None],
    *,
    debug: bool,
    expand: Callable[[str], list[str] | None] = lambda _: None,
    foresee: Callable[[str], bool] = lambda _: True,
    failed: Callable[[str, Exception, int], object] = lambda *_: None,
) -> int:
    """Do `work` on every file, even if it fails for some. Returns the exit code of the first failure, or 0.

    `expand` gives what stands in place of an argument: the contents of a folder, None for anything else. Before any
    work, `foresee` is told of all files, and returns False for those to leave out. `failed` is told of each failure:
    the file, the error and its exit code.
    """
    first_code = 0
    wanted = [found for found in _expanded(arguments, expand) if found[1] is not None or foresee(found[0])]
    for argument, problem in wanted:
        try:
            if problem is not None:
                raise problem
            work(argument)
        except (BrokenPipeError, KeyboardInterrupt):
            raise
        except Exception as error:
            code = report(error, label(argument), debug=debug)
            failed(label(argument), error, code)
            first_code = first_code or code
    return first_code


def _expanded(
    arguments: Iterable[str], expand: Callable[[str], list[str] | None]
) -> Iterator[tuple[str, Exception | None]]:
    """Every file in order, and every folder that cannot be looked into, with the reason."""
    waiting = deque(arguments)
    while waiting:
        argument = waiting.popleft()
        try:
            found = expand(argument)
        except Exception as problem:
            yield argument, problem
        else:
            if found is None:
                yield argument, None
            else:
                waiting.extendleft(reversed(found))


def grouped_options(command: click.Command, ctx: click.Context) -> dict[str, list[tuple[str, str]]]:
    """The options of a command with what the help says of them, under the headings of their groups."""
    known = {name: heading for heading, names in GROUPS for name in names}
    found: dict[str, list[tuple[str, str]]] = {heading: [] for heading in ("Options", *dict(GROUPS))}
    for param in command.get_params(ctx):
        record = param.get_help_record(ctx)
        if record and isinstance(param, click.Option):
            name = HELP if HELP in param.opts else param.name or ""
            found[known.get(name, "Options")].append(record)
    return {heading: records for heading, records in found.items() if records}


class Command(click.Command):
    """A command whose errors are one line each, and whose options stand in groups."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for heading, records in grouped_options(self, ctx).items():
            with formatter.section(heading):
                formatter.write_dl(records)

    def invoke(self, ctx: click.Context) -> Any:
        debug = ctx.params["debug"]
        with warnings.catch_warnings():
            if not debug:
                warnings.simplefilter("ignore")
            try:
                return super().invoke(ctx)
            except (click.exceptions.Exit, click.ClickException, BrokenPipeError):
                raise
            except Exception as error:
                return report(error, "", debug=debug)


class Commands(click.Group):
    """Commands with short aliases, each shown once."""

    command_class = Command

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, ALIASES.get(cmd_name, cmd_name))

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)  # in the order in which they were defined

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        short = {name: alias for alias, name in ALIASES.items()}
        rows = [
            (f"{short[name]}, {name}" if name in short else f"   {name}", command.get_short_help_str(80))
            for name, command in self.commands.items()
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def main(self, args: Sequence[str] | None = None, **kwargs: Any) -> Any:  # type: ignore[override]
        kwargs |= {"standalone_mode": False, "prog_name": self.name}
        try:
            code = super().main(with_command(sys.argv[1:] if args is None else args), **kwargs)
        except click.UsageError as error:
            right = SPELLINGS.get(error.option_name) if isinstance(error, click.NoSuchOption) else None
            help_at = f" (see {error.ctx.command_path} --help)" if error.ctx else ""
            Console().complain("", error.format_message() + (f" {right}" if right else help_at))
            code = EXIT_USAGE
        except click.Abort:
            Console().complain("", "interrupted")
            code = EXIT_INTERRUPTED
        except OSError as error:  # help and versions are printed outside of any command
            code = report(error, "", debug=False)
        sys.exit(code)
