"""Models of the Hugging Face Hub: what its cache lacks is told, and no more is fetched than is loaded."""

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from models import TINY_MODEL, make_gguf, make_model

from cramzip.errors import MissingModelError, ModelError
from cramzip.lm.hub import is_hub_id
from cramzip.lm.models import load
from cramzip.lm.source import find, find_named

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FOUND = "import sys; from cramzip.lm.source import find; print(find('acme/tiny', download=True).fingerprint.hex())"


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A model in two files, with much beside it that is not loaded."""
    folder = tmp_path_factory.mktemp("repository")
    make_model("llama", folder).save_pretrained(folder, max_shard_size="60KB")
    (folder / "model.safetensors").unlink()
    (folder / "original").mkdir()
    beside = ("consolidated.safetensors", "model.fp32.safetensors", "pytorch_model.bin", "original/consolidated.pth")
    for name in (*beside, "adapter_model.safetensors", "original/params.json", "notes.txt", "tokenizer.model"):
        (folder / name).write_text("{}")
    assert len(shards(folder)) > 1
    return folder


def shards(folder):
    return sorted(path.name for path in folder.glob("model-*.safetensors"))


@pytest.fixture
def cache(repository, tmp_path, monkeypatch):
    """The snapshot in a cache of the Hub, with what is needed of the repository."""
    hub = tmp_path / "snapshots"  # which folders in it are called, too
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub))
    model = hub / "models--acme--tiny"
    snapshot = model / "snapshots" / COMMIT
    for folder in (snapshot, model / "blobs", model / "refs"):
        folder.mkdir(parents=True)
    (model / "refs" / "main").write_text(COMMIT)
    for name in ("config.json", "model.safetensors.index.json", "tokenizer.json", *shards(repository)):
        (model / "blobs" / name).write_bytes((repository / name).read_bytes())
        (snapshot / name).symlink_to(f"../../blobs/{name}")
    return snapshot


def test_a_complete_snapshot_is_found_and_loaded(cache, repository):
    assert load("acme/tiny").source.path == cache
    assert find("hf:acme/tiny").fingerprint == find(str(repository)).fingerprint


@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json", "tokenizer.json", "second shard"])
@pytest.mark.parametrize("what", ["link", "blob"])
def test_a_file_that_the_cache_lacks_is_told_as_missing(cache, repository, name, what):
    name = shards(repository)[1] if name == "second shard" else name
    (cache / name).resolve().unlink() if what == "blob" else (cache / name).unlink()
    shown = "model.safetensors" if "index" in name else name
    for search in (lambda: find("acme/tiny"), lambda: find_named("hf:acme/tiny", COMMIT)):
        with pytest.raises(MissingModelError, match=rf"not complete .*\({shown} is missing\); --download fetches it"):
            search()


def test_a_snapshot_of_the_tokenizer_alone_is_told_as_incomplete(cache):
    for path in cache.iterdir():
        if not path.name.startswith("tokenizer"):
            path.unlink()
    with pytest.raises(MissingModelError, match="--download"):
        find("acme/tiny")


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"weight_map": 1}', '{"weight_map": {"a": 1}}', "\xff"])
def test_an_index_that_cannot_be_read_is_told(cache, content):
    (cache / "model.safetensors.index.json").resolve().write_text(content, encoding="latin-1")
    with pytest.raises(ModelError, match=r"index\.json"):
        find("acme/tiny")


@pytest.fixture
def hub(repository):
    """A server that answers as the Hub does, and the names of the files that were fetched from it."""
    files = {path.relative_to(repository).as_posix(): path for path in repository.rglob("*") if path.is_file()}
    fetched = set()

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path.startswith("/api/models/acme/tiny/tree/"):
                self.send(json.dumps([self.entry(name, path) for name, path in files.items()]).encode())
            elif self.path.startswith("/api/models/acme/tiny"):
                siblings = [{"rfilename": name} for name in files]
                self.send(json.dumps({"id": "acme/tiny", "sha": COMMIT, "siblings": siblings}).encode())
            elif (name := self.path.partition(f"/resolve/{COMMIT}/")[2]) in files:
                fetched.add(name)
                self.send(files[name].read_bytes())
            else:
                self.send_error(404)

        do_HEAD = do_GET

        def entry(self, name, path):
            return {
                "type": "file",
                "path": name,
                "size": path.stat().st_size,
                "oid": hashlib.sha1(name.encode()).hexdigest(),
            }

        def send(self, content):
            self.send_response(200)
            for key, value in {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha1(content).hexdigest()}"'}.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", fetched
    server.shutdown()
    thread.join()
    server.server_close()


def found_through(address, tmp_path):
    environment = os.environ | {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1"}
    environment.pop("HF_HUB_CACHE", None)
    return subprocess.run([sys.executable, "-c", FOUND], env=environment, capture_output=True, text=True)


def test_nothing_is_fetched_that_is_not_loaded(hub, repository, tmp_path):
    address, fetched = hub
    finished = found_through(address, tmp_path)
    assert finished.stdout.strip() == find(str(repository)).fingerprint.hex(), finished.stderr
    assert fetched - {"tokenizer_config.json", "generation_config.json"} == {
        *("config.json", "model.safetensors.index.json", "tokenizer.json"),
        *shards(repository),
    }


def test_a_hub_that_does_not_answer_is_told_in_one_line(tmp_path):
    finished = found_through("http://127.0.0.1:9", tmp_path)
    message = finished.stderr.splitlines()[-1]
    assert message.startswith("cramzip.errors.ModelError: model acme/tiny is not on this machine, and this machine is")


def test_a_gguf_file_of_a_repository_is_found_in_the_cache(cache, tmp_path):
    made = make_gguf(tmp_path / "tiny.gguf")
    (cache / "q").mkdir()
    (cache / "q" / "tiny-Q4.gguf").symlink_to(made)
    source = find("acme/tiny:q/tiny-Q4.gguf")
    assert (source.model_id, source.revision, source.is_gguf) == ("hf:acme/tiny:q/tiny-Q4.gguf", COMMIT, True)
    assert source.fingerprint == find(str(made)).fingerprint
    assert find_named(source.model_id, COMMIT).path == source.path
    with pytest.raises(MissingModelError, match=re.escape("acme/tiny:other.gguf")):
        find("acme/tiny:other.gguf")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        ("GatedRepoError", "is gated: accept its conditions at https://huggingface.co/acme/small"),
        ("RepositoryNotFoundError", "Hugging Face has no model acme/small"),
        ("LocalEntryNotFoundError", "this machine is offline"),
    ],
)
def test_what_the_hub_answers_is_told_with_what_to_do(monkeypatch, error, told):
    from huggingface_hub import errors

    kind = getattr(errors, error)

    def refuse(*_, **__):
        raise kind.__new__(kind)

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(ModelError, match=told) as caught:
        find("acme/small", download=True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["gpt2", "acme/tiny", "a-b/c.d_e", "x" * 96])
def test_a_name_that_a_repository_can_have(name):
    assert is_hub_id(name)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "a/..", "../a", "a/b/c", "a--b", "a..b", "-a", "a-", "a/.b", "a/", "/a", "x" * 97, "é", "a\n"],
)
def test_a_name_that_no_repository_can_have(name):
    assert not is_hub_id(name)
    if name:
        with pytest.raises(ModelError, match="not a Hugging Face id"):
            find(f"hf:{name}")
        with pytest.raises(ModelError, match="say where it is"):
            find_named(f"hf:{name}", "")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("x" * 300, "no such folder or file"),
        ("a/" * 3000, "no such folder or file"),
        ("a\0b", "no such folder or file"),
        ("nomodel.gguf", "nomodel.gguf: no such file$"),
        ("./nomodel.GGUF", "nomodel.GGUF: no such file$"),
        ("./nomodel", "nomodel: no such folder or file$"),
        ("/no/such/model", "/no/such/model: no such folder or file$"),
        ("no such model", "not a Hugging Face id .built-in: builtin:primer.$"),
        ("acme/tiny:../../x.gguf", "not a Hugging Face id"),
        ("acme/tiny:x.bin", "not a Hugging Face id"),
        ("primer", "the built-in model is called builtin:primer"),
        ("builtin:primr", "no built-in model is called 'primr'; there is primer"),
        ("builtin:..", "there is primer"),
        (str(TINY_MODEL / "config.json"), "expected a model folder or a .gguf file"),
    ],
    ids=lambda text: text[:20],
)
def test_a_name_that_leads_nowhere_is_told_at_once(name, message):
    with pytest.raises(ModelError, match=message):
        find(name, download=True)
