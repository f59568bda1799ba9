"""The house in order: what anyone who changes something here may rely on."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from cramzip import __version__

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
TESTS = ROOT / "tests"
MODULES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "cramzip").rglob("*.py"))}
IMPORTED_BY_NAME_ONLY = {"safetensors", "accelerate"}  # transformers loads models with them


# -- the package as it is installed ----------------------------------------------------------------


def test_the_version_stands_in_the_package_alone():
    assert "version" not in PROJECT["project"]
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "cramzip.__version__"}
    sources = [path for path in MODULES if f'"{__version__}"' in path.read_text(encoding="utf-8")]
    assert sources == [ROOT / "cramzip" / "__init__.py"]


def requirements(lines):
    return {requirement.name: requirement for requirement in map(Requirement, lines)}


PLAIN = requirements(PROJECT["project"]["dependencies"])
EXTRAS = {extra: requirements(lines) for extra, lines in PROJECT["project"]["optional-dependencies"].items()}


def imported_packages(tree):
    """What a module imports from outside, under the names of package registries."""
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
        yield from (name.partition(".")[0].replace("_", "-") for name in names)


def test_dependencies_are_what_the_package_imports_and_no_more():
    imported = {name for tree in MODULES.values() for name in imported_packages(tree)}
    outside = {name for name in imported if name.replace("-", "_") not in sys.stdlib_module_names | {"_typeshed"}}
    extras = {name for extra, packages in EXTRAS.items() if extra != "dev" for name in packages} - {"cramzip"}
    assert outside | IMPORTED_BY_NAME_ONLY == set(PLAIN) | extras
    assert not set(PLAIN) & extras


def test_compressing_needs_no_extra():
    packages = sorted({name for extra, packages in EXTRAS.items() if extra != "dev" for name in packages} - {"cramzip"})
    code = (
        f"import sys\nsys.modules |= dict.fromkeys({packages!r})\nimport cramzip\n"
        f"lm = cramzip.load({str(ROOT / 'formats' / 'model')!r})\ntext = b'the cat sat on the mat. ' * 4\n"
        "blob = cramzip.compress(text, lm, cramzip.CramConfig(effort=1))\nassert cramzip.decompress(blob, lm) == text"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def test_whoever_works_on_cramzip_gets_all_extras():
    assert EXTRAS["dev"]["cramzip"].extras == set(EXTRAS) - {"dev"}


def test_every_extra_that_a_message_names_is_there():
    named = {extra for path in MODULES for extra in re.findall(r"cramzip\[(\w+)\]", path.read_text(encoding="utf-8"))}
    assert named == set(EXTRAS) - {"dev"}


def test_every_dependency_has_a_pinned_version_that_suits_it():
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").split())
    pinned = {name.lower().replace("_", "-"): version for name, version in pinned.items()}
    for packages in (PLAIN, *EXTRAS.values()):
        for name, requirement in packages.items():
            assert name == "cramzip" or requirement.specifier.contains(pinned[name]), name


# -- size ------------------------------------------------------------------------------------------


MOST_PARAMETERS, MOST_LINES = 6, 350
PUBLIC = {"app.opening.open", "codec.compress", "codec.decompress", "codec.read", "codec.unverified", "lm.models.load"}


def functions(tree, scope):
    """Every function of a module, under its full name."""
    for node in ast.iter_child_nodes(tree):
        name = f"{scope}.{node.name}" if hasattr(node, "name") and node.name else scope
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield name, node.args
        elif isinstance(node, ast.Lambda):
            yield f"{scope}.lambda", node.args
        yield from functions(node, name)


def n_parameters(name, arguments):
    positional = [one for one in arguments.posonlyargs + arguments.args if one.arg not in ("self", "cls")]
    by_keyword = [] if name in PUBLIC else arguments.kwonlyargs
    return len(positional) + len(by_keyword) + (arguments.vararg is not None) + (arguments.kwarg is not None)


def module_name(path):
    return ".".join(path.relative_to(ROOT / "cramzip").with_suffix("").parts)


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_no_function_takes_more_than_six_parameters(path):
    """Keyword-only ones of the public API are not counted, nor are the fields of dataclasses."""
    found = {name: n_parameters(name, arguments) for name, arguments in functions(MODULES[path], module_name(path))}
    assert {name: n for name, n in found.items() if n > MOST_PARAMETERS} == {}


def test_the_functions_that_may_take_more_are_there():
    names = {name for path, tree in MODULES.items() for name, _ in functions(tree, module_name(path))}
    assert names >= PUBLIC


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_no_module_is_too_long_to_be_read_at_once(path):
    assert path.read_text(encoding="utf-8").count("\n") <= MOST_LINES


# -- tests -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", ["conftest", "test_rangecoder"])
def test_a_test_that_needs_no_model_is_loaded_without_torch_and_the_command_line(module):
    code = f"import sys, {module}\nprint(*{{'torch', 'transformers', 'cramzip.app.cli'}} & set(sys.modules))"
    path = os.pathsep.join([str(TESTS), str(ROOT)])
    environment = os.environ | {"PYTHONPATH": path}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.split() == []


def test_tests_run_in_the_process_that_a_debugger_sees_unless_make_spreads_them():
    assert "-n" not in PROJECT["tool"]["pytest"]["ini_options"]["addopts"].split()
    assert " -n logical " in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_what_runs_on_every_change_checks_style_types_and_behaviour():
    steps = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "set -euo pipefail" in steps
    assert steps.index("make lint") < steps.index("make test")
    recipes = (ROOT / "Makefile").read_text(encoding="utf-8")
    for check in ("ruff check .", "ruff format --check .", "mypy", "python -m pytest"):
        assert f"$(BIN)/{check}" in recipes
