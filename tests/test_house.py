"""The house in order: what anyone who changes something here may rely on."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from cramzip import __version__

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
TESTS = ROOT / "tests"


# -- the package as it is installed ----------------------------------------------------------------


def test_the_version_stands_in_the_package_alone():
    assert "version" not in PROJECT["project"]
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "cramzip.__version__"}
    sources = [path for path in (ROOT / "cramzip").rglob("*.py") if f'"{__version__}"' in path.read_text("utf-8")]
    assert sources == [ROOT / "cramzip" / "__init__.py"]


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
