"""The papers: their code runs, their commands parse, their links lead somewhere, their figures are those measured."""

import ast
import inspect
import json
import re
import runpy
import shlex
import shutil
import subprocess
from collections import defaultdict
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from models import ROOT
from test_layers import PACKAGE, ROOMS

import cramzip
from cramzip.app.cli import commands
from cramzip.app.shell import ALIASES
from cramzip.app.spelling import with_command
from cramzip.errors import CramError

MANUALS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PAPERS = [
    *MANUALS,
    ROOT / "CHANGELOG.md",
    *sorted(path for place in ("formats", "examples", "cramzip") for path in (ROOT / place).rglob("*.md")),
]
SCRIPTS = sorted((ROOT / "examples").rglob("*.py"))
BOOK = b"The old man had lived by the river for a long time.\n"
NOTES = b"The rain had stopped.\n"
FILE_NAME = re.compile(r"[\w-]+(?:\.txt)?\.(?:txt|cram)\b")
SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def name_of(path):
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)


# -- Markdown --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """A block of code: fenced, with a language, or indented."""

    language: str
    text: str


def blocks_and_prose(path):
    """The blocks of code in a paper, and all its other lines."""
    blocks, prose, code, language = [], [], [], None
    before = ""
    for line in [*path.read_text(encoding="utf-8").splitlines(), ""]:
        if line.startswith("```"):
            if language is None:
                language = line[3:].strip()
            else:
                blocks.append(Block(language, "\n".join(code)))
                code, language = [], None
        elif language is not None:
            code.append(line)
        elif line.startswith("    ") and (code or not before.strip()):
            code.append(line[4:])
        else:
            if code:
                blocks.append(Block("", "\n".join(code)))
                code = []
            prose.append(line)
        before = line
    assert language is None, f"{path}: a fence is not closed"
    return blocks, prose


def rows(lines):
    """The cells of all rows of tables, without the lines under headings."""
    found = [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines if line.startswith("|")]
    return [cells for cells in found if not set("".join(cells)) <= {"-", " ", ":"}]


def slug(heading):
    """The anchor that a heading has on the usual sites."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


def anchors(path):
    return {slug(line.lstrip("#")) for line in blocks_and_prose(path)[1] if line.startswith("#")}


# -- commands --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Command:
    """One command of a shell, where its input and output go, and what is said of it."""

    words: tuple[str, ...]
    stdin: str | None = None
    stdout: str | None = None
    comment: str = ""


def commands_in(text):
    """The simple commands in lines of shell."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        comment = line.partition(" #")[2]
        words, places = [], {}
        for word in [*lexer, ";"]:
            if word in ("|", "&&", ";"):
                if words:
                    yield Command(tuple(words), places.get("<"), places.get(">"), comment)
                words, places = [], {}
            elif word in ("<", ">", ">>"):
                places[word[0]] = None
            elif None in places.values():
                places = {key: word if value is None else value for key, value in places.items()}
            else:
                words.append(word)


def parsed(words):
    """The command of cramzip that `words` are for, and its parameters. Raises click.UsageError."""
    words = with_command(words) if words else words
    if not words:
        return "compress", {}
    if words[0].startswith("-"):
        with pytest.raises(click.exceptions.Exit), commands.make_context("cramzip", list(words)) as context:
            commands.invoke(context)
        return None, {}
    command = commands.get_command(None, words[0])
    if command is None:
        raise click.UsageError(f"no such command: {words[0]}")
    try:
        with command.make_context(words[0], list(words[1:])) as context:
            return command.name, context.params
    except click.exceptions.Exit:  # --help
        return command.name, {}


def is_runnable(words):
    """Whether a command needs nothing but the built-in model, and does not take minutes."""
    name, given = parsed(words)
    if given.get("model") or given.get("ray"):
        return False
    return name != "capacity" or not given or given["steps"] <= 50 or given["plot"]


def spans_with_commands():
    """Commands of cramzip within sentences: `cramzip l FILE`, and `l -v` for short."""
    for paper in PAPERS:
        paragraphs = "\n".join(blocks_and_prose(paper)[1]).split("\n\n")
        for span in (span for text in paragraphs for span in SPAN.findall(text.replace("\n", " "))):
            first, _, rest = span.partition(" ")
            if first == "cramzip" and rest:
                yield pytest.param(rest, id=f"{name_of(paper)}: {span}")
            elif first in (*ALIASES, *commands.commands) and rest.startswith("-"):
                yield pytest.param(span, id=f"{name_of(paper)}: {span}")


def options_of(script):
    """The options that a script of examples/ or formats/ defines, or that `common` beside it does."""
    found = set()
    for path in {script, script.with_name("common.py")}:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if path.exists() else ():
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("add_argument", "option")):
                names = [arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
                found |= {part for name in names for part in name.split("/") if part.startswith("-")}
    return found


def check_script(words, folder):
    """A command `python SCRIPT ...`: the script is there, and so are its options."""
    script = next((path for path in (folder / words[0], ROOT / words[0]) if path.exists()), None)
    assert script, f"{words[0]} is not in {folder}"
    options = {word.strip("[]").partition("=")[0] for word in words[1:]}
    unknown = {option for option in options if option.startswith("-")} - options_of(script)
    assert not unknown, f"{words[0]} has no {unknown}"


# -- code ------------------------------------------------------------------------------------------


PYTHON = [
    pytest.param(block.text, id=f"{name_of(paper)} {index}")
    for paper in PAPERS
    for index, block in enumerate(blocks_and_prose(paper)[0])
    if block.language == "python"
]


@pytest.mark.parametrize("code", PYTHON)
def test_python_in_the_papers_calls_what_there_is(code):
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("cramzip."):
            function = getattr(cramzip, ast.unparse(node.func).removeprefix("cramzip."))
            keywords = {keyword.arg: None for keyword in node.keywords}
            inspect.signature(function).bind(*node.args, **keywords)


@pytest.mark.parametrize("code", [one for one in PYTHON if "download=True" not in one.values[0]])
def test_python_in_the_papers_runs(code, folder):
    (folder / "block.py").write_text(code, encoding="utf-8")
    runpy.run_path("block.py", run_name="__main__")


@pytest.mark.parametrize("paper", PAPERS, ids=name_of)
def test_commands_in_the_papers_are_understood(paper):
    for block in blocks_and_prose(paper)[0]:
        for command in commands_in(block.text) if block.language in ("", "sh") else ():
            if command.words[0] == "cramzip":
                parsed(command.words[1:])


@pytest.mark.parametrize("command", list(spans_with_commands()))
def test_commands_in_sentences_are_understood(command):
    parsed(shlex.split(command))


@pytest.mark.usefixtures("short_runs")
@pytest.mark.parametrize("paper", MANUALS, ids=name_of)
def test_commands_in_the_papers_run(paper, folder):
    texts = {"book.txt": BOOK, "notes.txt": NOTES, "folder/a.txt": NOTES, "folder/b/a.md": BOOK}
    done = set()
    for block in blocks_and_prose(paper)[0]:
        for command in commands_in(block.text) if block.language == "sh" else ():
            is_ours = command.words[0] == "cramzip"
            if not is_ours or command in done or not is_runnable(command.words[1:]):
                continue
            done.add(command)
            restores = parsed(command.words[1:])[0] == "decompress"
            for name, content in texts.items():
                Path(name).parent.mkdir(parents=True, exist_ok=True)
                Path(name).write_bytes(content)
                if restores:
                    Path(name).unlink()
            stdin = Path(command.stdin).read_bytes() if command.stdin else None
            result = CliRunner().invoke(commands, command.words[1:], input=stdin)
            assert result.exit_code == 0, (command.words, result.stderr)
            if command.stdout:
                Path(command.stdout).write_bytes(result.stdout_bytes)
            for name in FILE_NAME.findall(command.comment):
                assert Path(name).exists(), (command.words, name)
                if restores:
                    assert Path(name).read_bytes() in texts.values(), (command.words, name)


@pytest.mark.parametrize("paper", [path for path in PAPERS if path.parent.name != "primer"], ids=name_of)
def test_scripts_that_the_papers_name_are_there_with_their_options(paper):
    for block in blocks_and_prose(paper)[0]:
        for command in commands_in(block.text) if block.language in ("", "sh") else ():
            if command.words[0].endswith("python") and command.words[1].endswith(".py"):
                check_script(command.words[1:], paper.parent)


@pytest.mark.parametrize("script", SCRIPTS, ids=name_of)
def test_scripts_import_names_that_there_are(script):
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "cramzip":
            module = import_module(node.module)
            assert not [alias.name for alias in node.names if not hasattr(module, alias.name)]


@pytest.mark.skipif(not shutil.which("make"), reason="there is no make here")
def test_make_figures_names_scripts_options_and_files_that_there_are():
    variables = ["TRAINING=T", "HELD_OUT=H", "WORK=W"]
    run = subprocess.run(["make", "-n", "figures", *variables], cwd=ROOT, capture_output=True, text=True, check=True)
    text = run.stdout.replace("then \\\n", "").replace(f"{ROOT}/", "")
    used = set()
    for command in commands_in("\n".join(line for line in text.splitlines() if not line.startswith("for "))):
        words = [word for word in command.words if not re.fullmatch(r"\w+=.*", word)]
        if words[0].endswith("bin/python") and words[1:3] == ["-m", "cramzip"]:
            parsed(words[3:])
            used.add(f"cramzip {words[3]}")
        elif words[0].endswith("bin/python") and words[1].endswith(".py"):
            check_script(words[1:], ROOT)
            used.add(Path(words[1]).name)
        for word in words:
            if word.startswith(("examples/", "cramzip/")) and "*" not in word:
                assert (ROOT / word).exists(), word
    assert used == {
        "cramzip bench", "cramzip capacity", "vectors_study.py", "prompts_study.py", "codebook_study.py", "cramming.py",
        "decoding.py", "scaling.py", "steps.py", "train_model.py",
    }  # fmt: skip


# -- what the papers say ---------------------------------------------------------------------------


@pytest.mark.parametrize("paper", PAPERS, ids=name_of)
def test_links_lead_somewhere(paper):
    for target in LINK.findall("\n".join(blocks_and_prose(paper)[1])):
        path, _, anchor = target.partition("#")
        if re.match(r"\w+:", target):
            continue
        found = paper.parent / path if path else paper
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), target


@pytest.mark.parametrize("paper", [*MANUALS, ROOT / "CHANGELOG.md"], ids=name_of)
def test_lines_are_not_too_long(paper):
    prose = [line for line in blocks_and_prose(paper)[1] if not line.startswith("|")]
    code = [line for block in blocks_and_prose(paper)[0] for line in block.text.splitlines()]
    assert [line for line in prose + code if len(line) > 120] == []


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


@pytest.mark.parametrize("paper", [path for path in PAPERS if path.name == "README.md" or path in MANUALS], ids=name_of)
def test_tables_leave_out_what_was_not_measured(paper):
    cells = [cell for row in rows(blocks_and_prose(paper)[1]) for cell in row]
    assert not {"-", "?", "not yet measured", "not measured", "TODO"} & set(cells)


def test_every_option_of_every_command_is_in_the_manual_and_no_other():
    described = defaultdict(set)
    for cells in rows(blocks_and_prose(ROOT / "docs" / "cli.md")[1]):
        if len(cells) == 3 and cells[0].startswith("`-"):
            options = {span.split()[0] for span in SPAN.findall(cells[0])}
            if " to " in cells[0]:
                options = {f"-{n}" for n in range(1, 10)}
            for command in SPAN.findall(cells[1]):
                described[ALIASES.get(command, command)] |= options
    there = {
        name: {
            option for param in command.params for option in (*param.opts, *param.secondary_opts) if option[0] == "-"
        }
        for name, command in commands.commands.items()
    }
    for name, options in there.items():
        assert described[name] == options | {"-h", "--help"}, name
    assert set(described) == set(there)


def test_every_exit_code_is_in_the_manual():
    codes = {cells[0] for cells in rows(blocks_and_prose(ROOT / "docs" / "cli.md")[1]) if re.match(r"\d", cells[0])}
    kinds, seen = [CramError], set()
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        seen.add(str(kind.exit_code))
    assert {"0", *seen} <= codes


def test_the_manual_of_the_laboratory_names_every_experiment():
    from cramzip.laboratory.experiments import EXPERIMENTS

    first = {cells[0].strip("`") for cells in rows(blocks_and_prose(ROOT / "docs" / "laboratory.md")[1])}
    assert set(EXPERIMENTS) <= first


def test_sizes_in_the_readme_are_those_that_were_measured():
    measured = defaultdict(dict)
    for one in json.loads((ROOT / "examples" / "results" / "sizes_primer.json").read_text())["measurements"]:
        measured[one["original_bytes"]][one["codec"]] = one["compressed_bytes"]
    table = [cells for cells in rows(blocks_and_prose(ROOT / "README.md")[1]) if len(cells) == 7]
    assert len(table) > 5
    for cells in table[1:]:
        numbers = [int(cell.strip("*").replace(",", "")) for cell in cells[1:]]
        found = measured[numbers[0]]
        assert numbers[1:] == [found[codec] for codec in table[0][2:]], cells[0]


def test_capacities_in_the_manual_are_those_that_were_measured():
    kind, known = "", {}
    for line in (ROOT / "examples" / "laboratory" / "table.md").read_text(encoding="utf-8").splitlines():
        if line.endswith(":"):
            kind = "books" if line.startswith("Books") else "random words"
        for cells in rows([line]):
            known[kind, cells[0].partition("-Instruct")[0]] = cells
    table = rows(blocks_and_prose(ROOT / "docs" / "laboratory.md")[1])
    here = [cells for cells in table if len(cells) == 7 and cells[0] != "model"]
    papers = [cells for cells in table if len(cells) == 5 and cells[0] != "model"]
    assert len(here) >= 2
    assert len(papers) == 6
    for name, kind, *found in here:
        cells = known[kind, name]
        assert found == [cells[i] for i in (1, 3, 4, 6, 8)]
    for name, *found in papers:
        cells = known["books", name]
        assert found == [cells[i] for i in (1, 2, 5, 7)]


# -- architecture ----------------------------------------------------------------------------------


ARCHITECTURE = ROOT / "docs" / "architecture.md"


def test_the_line_of_rooms_is_that_of_the_package():
    (line,) = [block.text for block in blocks_and_prose(ARCHITECTURE)[0] if "<" in block.text]
    there = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    expected = [[room for room in rooms if room in there] for rooms in ROOMS]
    assert [part.strip().split(", ") for part in line.split("<")] == [rooms for rooms in expected if rooms]
    described = {cells[0].strip("`/").removesuffix(".py") for cells in rows(blocks_and_prose(ARCHITECTURE)[1])}
    assert {room for rooms in expected for room in rooms} <= described


def test_modules_that_the_architecture_names_are_there_and_no_others():
    for line in blocks_and_prose(ARCHITECTURE)[1]:
        for span in SPAN.findall(line):
            if re.fullmatch(r"[\w/]+(\.py|\.md|/)", span):
                assert any((place / span).exists() for place in (ROOT, PACKAGE, PACKAGE / "lm")), span
        for word, path in re.findall(r"`(\w+)`(?: in|,) `([\w/]+\.py)`", line):
            found = next(place / path for place in (ROOT, PACKAGE) if (place / path).exists())
            made = re.compile(rf"^(class |def )?{word}\b[^\n]*[:=]", re.MULTILINE)
            assert made.search(found.read_text(encoding="utf-8")), f"{word} is not made in {path}"
    for cells in rows(blocks_and_prose(ARCHITECTURE)[1]):
        room = cells[0].strip("`")
        if len(cells) == 3 and room.endswith("/"):
            for module in SPAN.findall(cells[1]):
                if re.fullmatch(r"[a-z]+/?", module):
                    places = (PACKAGE / room / module, PACKAGE / room / f"{module}.py")
                    assert any(path.exists() for path in places), f"{room}{module}"
            paths = [*(PACKAGE / room).glob("[!_]*.py"), *(PACKAGE / room).glob("*/__init__.py")]
            there = {path.stem if path.name != "__init__.py" else f"{path.parent.name}/" for path in paths}
            assert there <= set(SPAN.findall(cells[1])), room


def test_there_is_one_glossary_with_each_word_once():
    with_glossary = [name_of(path) for path in PAPERS if "glossary" in anchors(path)]
    assert with_glossary == ["docs/architecture.md"]
    prose = blocks_and_prose(ARCHITECTURE)[1]
    words = [word for cells in rows(prose[prose.index("## Glossary") :])[1:] for word in cells[0].split(", ")]
    assert len(words) > 40
    assert len(words) == len(set(words))
    assert words == sorted(words, key=lambda word: word.strip("`[").lower())
