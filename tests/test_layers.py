"""The house: imports between rooms only go down, none within a room goes in a circle, and the doors open lightly."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from hashlib import sha256
from pathlib import Path

import pytest

from cramzip.container import writing
from cramzip.container.records import BuiltinModel, Coding, Header, Kind, Parameters, Vectors
from cramzip.lm.source import find

PACKAGE = Path(__file__).parent.parent / "cramzip"
# From the ground up: a room may import from those before it. Rooms of one line do not know each other.
ROOMS = (
    ("errors", "locks", "whole"),
    ("rangecoder",),
    ("filters",),
    ("container",),
    ("exact",),
    ("lm",),
    ("workers", "config"),
    ("coding",),
    ("codec",),
    ("laboratory",),
    ("app",),
    ("__main__",),
)
HEAVY = ("torch", "transformers", "numpy", "tokenizers", "huggingface_hub", "tqdm", "matplotlib")
MODULES = sorted(
    path.relative_to(PACKAGE).with_suffix("").as_posix() for path in PACKAGE.rglob("*.py") if path.stem != "__init__"
)


def floor(module):
    room = module.partition("/")[0]
    return next(index for index, rooms in enumerate(ROOMS) if room in rooms)


def imported_modules(module):
    """Modules of the package that a module imports, anywhere in it."""
    for node in ast.walk(ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            origin = Path(module).parents[node.level - 1] / (node.module or "").replace(".", "/")
            places = [origin, *(origin / alias.name for alias in node.names)]
            yield from (place.as_posix() for place in places if place.as_posix() in MODULES)


def heavy_modules_after(statement):
    code = f"{statement}\nimport sys\nprint(*(name for name in {HEAVY!r} if name in sys.modules))"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return finished.stdout.splitlines()[-1].split()


@pytest.mark.parametrize("module", MODULES)
def test_imports_between_rooms_only_go_down(module):
    room = module.partition("/")[0]
    upwards = [
        other for other in imported_modules(module) if other.partition("/")[0] != room and floor(other) >= floor(module)
    ]
    assert not upwards


def test_no_imports_go_in_a_circle():
    TopologicalSorter({module: set(imported_modules(module)) for module in MODULES}).prepare()


def test_every_import_within_the_package_is_seen_by_these_tests():
    for module in MODULES:
        for node in ast.walk(ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            assert not any(name.partition(".")[0] == "cramzip" for name in names), module


def test_importing_the_package_loads_nothing_heavy():
    assert heavy_modules_after("import cramzip") == []


@pytest.mark.parametrize("command", ["compress", "capacity"])
def test_help_loads_nothing_heavy(command):
    run = f"from cramzip.app.cli import commands\ntry: commands([{command!r}, '--help'])\nexcept SystemExit: pass"
    assert heavy_modules_after(run) == []


def test_telling_the_version_loads_nothing_heavy():
    run = "from cramzip.app.cli import commands\ntry: commands(['--version'])\nexcept SystemExit: pass"
    assert heavy_modules_after(run) == []


@pytest.mark.parametrize("options", [[], ["-v"], ["--json"]], ids=lambda options: " ".join(options) or "plain")
def test_listing_a_file_loads_no_torch(tmp_path, options):
    digest = find().digest
    vectors = Vectors(Coding.SIGNS, width=16, gain=3)
    with (tmp_path / "a.cram").open("wb") as sink:
        header = Header(3, bytes(4), None, BuiltinModel(digest), Parameters(), vectors)
        writing.write(sink, header, [writing.modelled_group(Kind.RECITED, b"abc", 1, 1, bytes(3))])
    command = f"commands(['list', *{options!r}, {str(tmp_path / 'a.cram')!r}])"
    run = f"from cramzip.app.cli import commands\ntry: {command}\nexcept SystemExit as end: assert not end.code"
    assert not {"torch", "transformers"} & set(heavy_modules_after(run))


def test_only_the_command_line_exits_and_prints():
    for module in MODULES:
        if module in ("app/cli", "app/console", "app/report", "app/shell", "__main__"):
            continue
        for node in ast.walk(ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func) not in ("print", "sys.exit", "exit", "click.echo"), module


@pytest.mark.parametrize(
    "module",
    ["codec", "config", "coding.view", "coding.restore", "lm.tokens", "lm.identity", "app.cli", "app.jobs"]
    + [name.replace("/", ".") for name in MODULES if name.startswith("container/")],
)
def test_what_needs_no_model_loads_no_torch(module):
    assert not {"torch", "transformers"} & set(heavy_modules_after(f"import cramzip.{module}"))


@pytest.mark.parametrize(
    "arguments", [["--help"], ["-V"], ["c", "--help"], ["list", "a.cram"], ["d", "a.cram"]], ids=" ".join
)
def test_the_command_line_opens_where_files_have_no_locks(tmp_path, arguments):
    """As on Windows."""
    with (tmp_path / "a.cram").open("wb") as sink:
        writing.write(sink, Header(0, sha256().digest(), "a"), [])
    code = f"import sys\nsys.modules['fcntl'] = None\nfrom cramzip.app.cli import commands\ncommands({arguments!r})"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert "Traceback" not in finished.stderr
