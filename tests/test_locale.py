"""Text files are UTF-8, whatever the locale of the process says."""

import ast
import json
import os
import shutil
import subprocess
import sys

import pytest
from models import ROOT, TINY_MODEL

from cramzip.lm.fingerprint import folder_fingerprint

MODULES = sorted(path for folder in ("cramzip", "formats", "examples") for path in (ROOT / folder).rglob("*.py"))
LOADED = "import sys, cramzip; sys.stdout.write(cramzip.load(sys.argv[1]).fingerprint.hex())"
NOT_UTF8 = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.fixture(params=["ASCII", "Latin-1"])
def locale(request, tmp_path):
    """The environment of a process in another locale."""
    if request.param == "ASCII":
        return NOT_UTF8 | {"LC_ALL": "C"}
    if shutil.which("localedef") is None:
        pytest.skip("localedef is not here")
    name = "en_US.ISO-8859-1"
    made = subprocess.run(["localedef", "-i", "en_US", "-f", "ISO-8859-1", tmp_path / name], capture_output=True)
    if made.returncode:
        pytest.skip("localedef cannot make a Latin-1 locale here")
    return NOT_UTF8 | {"LC_ALL": name, "LOCPATH": str(tmp_path)}


@pytest.fixture
def french_model(tmp_path):
    """A model whose configuration, and whose folder's name, are not ASCII."""
    folder = shutil.copytree(TINY_MODEL, tmp_path / "modèle")
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | {"id2label": {"0": "étiquette"}}
    path.write_text(json.dumps(config, ensure_ascii=False), encoding="utf-8")
    return folder


def test_a_model_is_loaded_with_the_same_fingerprint_in_every_locale(french_model, locale):
    command = [sys.executable, "-c", LOADED, french_model]
    finished = subprocess.run(command, env=os.environ | locale, capture_output=True, text=True)
    assert finished.stdout == folder_fingerprint(french_model).hex(), finished.stderr


def opens_text(call):
    """Whether a call opens a file for text, as far as its own words tell."""
    of_an_object = isinstance(call.func, ast.Attribute)
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name == "TextIOWrapper" or (name in ("read_text", "write_text") and of_an_object):
        return True
    if name not in ("open", "fdopen"):
        return False
    if of_an_object and getattr(call.func.value, "id", "") in ("os", "webbrowser"):
        return False
    words = [
        *call.args[0 if of_an_object and name == "open" else 1 :],
        *(word.value for word in call.keywords if word.arg == "mode"),
    ]
    modes = [word.value for word in words if isinstance(word, ast.Constant) and isinstance(word.value, str)]
    choices = [ast.unparse(word) for word in words if isinstance(word, ast.IfExp)]
    return not any("b" in mode for mode in [*modes, *choices])


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_whoever_opens_a_text_file_says_its_encoding(path):
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Call) and opens_text(node):
            named = {word.arg for word in node.keywords}
            positional = [ast.unparse(word) for word in node.args]
            assert "encoding" in named or "'utf-8'" in positional, f"line {node.lineno}: {ast.unparse(node)}"
