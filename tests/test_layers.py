"""The house: imports only go down, and the outer doors open without the heavy furniture."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cramzip import container
from cramzip.records import BuiltinModel, Coding, Header, Kind, Parameters, Vectors
from cramzip.source import find

PACKAGE = Path(__file__).parent.parent / "cramzip"
LAYERS = (
    ("errors",),
    ("wire", "profiles", "gguf_file", "strict_json"),
    ("records", "rangecoder", "ranks", "tokens", "fingerprint", "chunking", "cache", "linear", "llama", "memory"),
    ("container", "quantize", "corrections", "source", "isolation"),
    ("payload", "loading"),
    ("lm", "describe"),
    ("cram", "decode", "workers", "laboratory/texts"),
    ("encode", "processes", "cluster", "laboratory/measures", "laboratory/published", "laboratory/store"),
    ("codec", "laboratory/optimise"),
    ("bench", "laboratory/experiments", "laboratory/figures", "laboratory/tables"),
    ("files", "journal", "console"),
    ("tables", "jobs", "shell", "options", "laboratory/command"),
    ("cli",),
    ("__main__",),
)
HEAVY = ("torch", "transformers", "numpy", "tokenizers", "huggingface_hub", "rich", "tqdm", "matplotlib")
MODULES = sorted(
    path.relative_to(PACKAGE).with_suffix("").as_posix() for path in PACKAGE.rglob("*.py") if path.stem != "__init__"
)


def layer(module):
    return next(index for index, rooms in enumerate(LAYERS) if module in rooms)


def imported_rooms(module):
    """Rooms that a module imports, anywhere in it."""
    for node in ast.walk(ast.parse((PACKAGE / f"{module}.py").read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            origin = Path(module).parents[node.level - 1] / (node.module or "").replace(".", "/")
            places = [origin, *(origin / alias.name for alias in node.names)]
            yield from (place.as_posix() for place in places if place.as_posix() in MODULES)


def heavy_modules_after(statement):
    code = f"{statement}\nimport sys\nprint(*(name for name in {HEAVY!r} if name in sys.modules))"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return finished.stdout.splitlines()[-1].split()


def test_every_module_has_a_layer():
    assert sorted(room for rooms in LAYERS for room in rooms) == MODULES


@pytest.mark.parametrize("module", MODULES)
def test_imports_only_go_down(module):
    upwards = [room for room in imported_rooms(module) if layer(room) >= layer(module)]
    assert not upwards


def test_importing_the_package_loads_nothing_heavy():
    assert heavy_modules_after("import cramzip") == []


def test_reading_a_container_loads_nothing_heavy():
    assert heavy_modules_after("import cramzip.container") == []


@pytest.mark.parametrize("command", ["compress", "capacity"])
def test_help_loads_nothing_heavy(command):
    run = f"from cramzip.cli import commands\ntry: commands([{command!r}, '--help'])\nexcept SystemExit: pass"
    assert heavy_modules_after(run) == []


@pytest.mark.parametrize("options", [[], ["-v"], ["--json"]], ids=lambda options: " ".join(options) or "plain")
def test_listing_a_file_loads_no_torch(tmp_path, options):
    digest = find().digest
    vectors = Vectors(Coding.SIGNS, width=16, gain=3)
    with (tmp_path / "a.cram").open("wb") as sink:
        header = Header(3, bytes(4), None, BuiltinModel(digest), Parameters(), vectors)
        container.write(sink, header, [container.modelled_group(Kind.RECITED, b"abc", 1, 1, bytes(3))])
    command = f"commands(['list', *{options!r}, {str(tmp_path / 'a.cram')!r}])"
    run = f"from cramzip.cli import commands\ntry: {command}\nexcept SystemExit as end: assert not end.code"
    assert not {"torch", "transformers"} & set(heavy_modules_after(run))


def test_only_the_command_line_exits_and_prints():
    for module in MODULES:
        if module in ("cli", "__main__", "console", "tables", "shell"):
            continue
        for node in ast.walk(ast.parse((PACKAGE / f"{module}.py").read_text())):
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func) not in ("print", "sys.exit", "exit", "click.echo"), module


def test_the_readme_shows_every_room_in_its_layer():
    readme = (PACKAGE.parent / "README.md").read_text()
    tree = readme[readme.index("cramzip/\n") : readme.index("formats/  ")]
    shown = re.findall(r"^ *(\d+)? +([\w/]+)\.py ", tree, re.MULTILINE)
    found, number = {}, None
    for label, module in shown:
        number = int(label) if label else number
        found[module] = number
    assert found == {module: layer(module) for module in MODULES}
