"""examples/training: from a folder of texts to a model, in small."""

import json
import random
import shutil
import sys

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from models import ROOT

import cramzip
from cramzip.exact.weights import quantise

sys.path.insert(0, str(ROOT / "examples" / "training"))

import dress
import overlap
import share_heads
import texts
from loop import read_log
from report import power_law
from rounding import rounded
from rows import LENGTHS, Rows
from schedule import Schedule
from tokenizers import Tokenizer
from train_model import cli
from transformers import LlamaConfig, LlamaForCausalLM

PROSE = (ROOT / "LICENSE").read_text(encoding="utf-8")
TINY = ["--layers", 1, "--hidden", 32, "--heads", 2, "--intermediate", 64, "--batch", 1024, "--no-compile"]


def run(*arguments, fails=False):
    result = CliRunner().invoke(cli, [str(a) for a in arguments])
    if not fails and result.exception:
        raise result.exception
    return result


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Two kinds of text, a few files each."""
    folder = tmp_path_factory.mktemp("corpus")
    rng = random.Random(0)
    for i in range(3):
        (folder / "prose").mkdir(exist_ok=True)
        (folder / "prose" / f"{i}.txt").write_text(PROSE[i * 3000 : i * 3000 + 3000], encoding="utf-8")
        (folder / "table").mkdir(exist_ok=True)
        table = "".join(f"{rng.randrange(1000)},{rng.choice(['Oslo', 'Rome'])}\n" for _ in range(300))
        (folder / "table" / f"{i}.csv").write_text(table)
    return folder


@pytest.fixture(scope="module")
def prepared(corpus, tmp_path_factory):
    work = tmp_path_factory.mktemp("prepared") / "work"
    run("prepare", corpus, work, "--vocab", 300)
    return work


@pytest.fixture(scope="module")
def trained(prepared, tmp_path_factory):
    work = tmp_path_factory.mktemp("trained") / "work"
    shutil.copytree(prepared, work)
    run("train", work, "--tokens", 8000, *TINY)
    return work


@pytest.fixture
def work(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "work")


def rows_of(work, weights, dress=False):
    kinds = json.loads((work / "prepare.json").read_text())["kinds"]
    stream = np.fromfile(work / "train.bin", dtype=np.uint16)
    return Rows(stream, kinds, weights, Tokenizer.from_file(str(work / "tokenizer.json")), dress)


# ---------------------------------------------------------------- texts to rows


def test_a_step_draws_the_same_rows_again(prepared):
    first, again = (rows_of(prepared, {}, dress=True).draw(5, 4096) for _ in range(2))
    assert torch.equal(first, again)


def test_every_row_begins_with_bos(prepared):
    rows = rows_of(prepared, {}, dress=True)
    assert all((rows.draw(step, 4096)[:, 0] == texts.BOS_ID).all() for step in range(len(LENGTHS)))


def test_a_kind_of_weight_0_is_not_drawn(prepared):
    rows = rows_of(prepared, {"table": 0})
    begin, end = json.loads((prepared / "prepare.json").read_text())["kinds"]["prose"]
    prose = set(rows.stream[begin:end].tolist())
    drawn = torch.cat([rows.draw(step, 4096).flatten() for step in range(0, 40, 8)])
    assert set(drawn[drawn > 0].tolist()) <= prose


def test_a_dressed_row_keeps_the_borders_of_texts(prepared):
    rows = rows_of(prepared, {})
    encode = rows.tokenizer.encode
    ids = np.array([*encode("One text.").ids, texts.BOS_ID, *encode("Another " * 40).ids], dtype=np.uint16)
    new = rows.in_dress(ids, [dress.upper], np.random.default_rng(3))
    assert rows.tokenizer.decode(new, skip_special_tokens=False).strip().endswith("ANOTHER")
    assert (np.array(rows.in_dress(ids, [], np.random.default_rng(1))) == texts.BOS_ID).sum() <= 1


SAMPLE = (
    'The "old" man said:\n    It\'s late. Go home.\n\nThen he left, and nobody ever saw him again in these parts.\n'
)


def test_what_is_held_out_is_cut_from_the_training_texts(tmp_path):
    for name, text in ("training", PROSE[:5000]), ("valid", PROSE[2000:3000]):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text(text, encoding="utf-8")
    run("prepare", tmp_path / "training", tmp_path / "work", "--valid", tmp_path / "valid", "--vocab", 300)
    windows, hits = overlap.compare(tmp_path / "work", tmp_path / "valid", print)
    assert windows["text"] > 500
    assert hits["text"] == 0
    assert len("".join(texts.packed_texts(tmp_path / "work"))) in range(3900, 4100)


def test_a_single_file_cannot_be_held_out(tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("One text.")
    result = run("prepare", tmp_path / "texts", tmp_path / "work", fails=True)
    assert result.exit_code == 2
    assert "only one file" in result.output


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (dress.upper, "THE "),
        (dress.lower, "the "),
        (dress.curl, "The “old” man said:\n    It’s late."),
        (dress.space_sentences, "late.  Go home."),
        (dress.quote, "> The"),
        (dress.trail, "said: \n"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_dress_changes_the_text_as_its_name_says(change, expected):
    assert expected in change(SAMPLE, np.random.default_rng(0))


def test_curly_quotes_become_straight_again():
    rng = np.random.default_rng(0)
    assert dress.curl(dress.curl(SAMPLE, rng), rng) == SAMPLE


def test_wrapped_lines_keep_their_words():
    wrapped = dress.wrap(PROSE, np.random.default_rng(0))
    assert wrapped.split() == PROSE.split()
    assert max(map(len, wrapped.split("\n"))) <= 80


# ---------------------------------------------------------------- schedule and law


def state(seconds, trained=0, step=1000):
    return {"seconds": seconds, "trained": trained, "step": step}


def test_the_learning_rate_rises_stays_and_falls_to_zero():
    schedule = Schedule(minutes=100, warm_up=10, decay=20)
    shares = [schedule.lr_share(state(60 * minute)) for minute in (0, 5, 10, 80, 90, 100)]
    assert shares == pytest.approx([0.01, 0.51, 1, 1, 0.5, 0], abs=1e-6)


def test_a_later_end_lets_the_rate_stay_and_a_sooner_one_lets_it_fall():
    now = state(60 * 60)
    assert Schedule(minutes=200, decay=20).lr_share(now) == 1
    assert Schedule(minutes=65, decay=20).lr_share(now) == pytest.approx(0.25)


def test_momentum_has_its_steps_even_if_they_take_long():
    assert Schedule(minutes=100, warm_up=1).lr_share(state(600, step=5)) < 0.2


def test_the_law_is_found_again():
    x = np.geomspace(1e6, 1e8, 20)
    floor, scale, alpha = power_law(x, 1.5 + 400 * x**-0.4, np.ones(20), np.arange(0.05, 1.01, 0.01))
    assert (floor, scale, alpha) == pytest.approx((1.5, 400, 0.4), rel=1e-3)


# ---------------------------------------------------------------- training


def test_training_lowers_the_loss(trained):
    log = read_log(trained)
    assert log[-1]["tokens"] >= 8000
    assert log[-1]["train_bits_per_byte"] < 8


def test_a_killed_run_goes_on_from_its_checkpoint(work):
    with (work / "log.jsonl").open("a") as f:
        f.write(json.dumps({"step": 10_000, "tokens": 1}) + '\n{"step": 10_0')  # what the kill cut off
    (work / "checkpoint.pt.new").write_bytes(b"half a check")
    run("train", work, "--tokens", 12000, "--rounding", 60, *TINY)
    log = read_log(work)
    assert [line["step"] for line in log] == sorted({line["step"] for line in log})
    assert 12000 <= log[-1]["trained"] < 14000


def test_a_run_whose_end_is_past_changes_nothing(work):
    before = (work / "checkpoint.pt").read_bytes()
    run("train", work, "--until", "2020-01-01T00:00", *TINY)
    assert (work / "checkpoint.pt").read_bytes() == before


def test_a_time_that_is_no_time_is_a_usage_error(work):
    result = run("train", work, "--until", "noon", fails=True)
    assert result.exit_code == 2
    assert "expected HH:MM" in result.output


@pytest.fixture(scope="module")
def model(trained, corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "small"
    run("export", trained, folder, "--valid", corpus)
    return folder


def test_cramzip_compresses_with_the_exported_model(model):
    lm = cramzip.load(str(model))
    blob = cramzip.compress(b"The licence", lm)
    assert cramzip.decompress(blob, lm) == b"The licence"


def test_the_card_names_every_kind_and_dress(model):
    card = (model / "README.md").read_text(encoding="utf-8")
    record = json.loads((model / "evaluation.json").read_text())
    assert all(f"| {name} |" in card for name in [*record["bits_per_byte"], *record["dress"]])


def test_training_goes_on_from_the_weights_of_a_model(model, prepared, corpus, tmp_path):
    work = tmp_path / "work"
    run("prepare", corpus, work, "--tokenizer", model)
    run("train", work, "--from", model, "--seen", 8192, "--tokens", 1, *TINY)
    log = read_log(work)
    assert log[-1]["tokens"] == 8192 + log[-1]["trained"]
    saved = torch.load(work / "checkpoint.pt", weights_only=True)["model"]["model.norm.weight"]
    assert torch.allclose(saved, cramzip_weights(model)["model.norm.weight"].float(), atol=0.01)


def cramzip_weights(folder):
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def test_rounded_weights_are_those_of_the_exact_engine():
    weights = np.random.default_rng(0).standard_normal((9, 40), dtype=np.float32)
    weights[3] = 0
    matrix = quantise(weights)
    assert np.allclose(rounded(torch.from_numpy(weights)), matrix.integers * matrix.scales[:, None], rtol=1e-6, atol=0)


def test_weights_of_another_tokenizer_are_refused(prepared, tmp_path):
    work = shutil.copytree(prepared, tmp_path / "work")
    result = run("train", work, "--from", ROOT / "formats" / "model", "--tokens", 1, fails=True)
    assert result.exit_code == 2
    assert "tokenizer" in result.output


# ---------------------------------------------------------------- texts in common


def folders(tmp_path, training, other):
    for name, text in ("training", training), ("other", other):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text(text, encoding="utf-8")
    return tmp_path / "training", tmp_path / "other"


def test_a_shared_passage_is_found_whatever_its_dress(tmp_path):
    passage = PROSE[1000:1400]
    training, other = folders(
        tmp_path, PROSE[:2000], "Something else altogether. " + passage.upper().replace(" ", "\n> ")
    )
    listed = []
    windows, hits = overlap.compare(training, other, listed.append)
    n_letters = sum(c.isalnum() for c in passage)
    assert hits["text"] == n_letters - overlap.WINDOW + 1
    assert len(listed) == 1
    assert listed[0]["text"].startswith(passage.strip()[:3].upper())
    assert windows["text"] > hits["text"]


def test_49_letters_in_common_are_no_window(tmp_path):
    common = "x" + "abcdefg" * 7
    training, other = folders(tmp_path, "1" + common[1:] + "2", "3" + common[1:] + "4")
    assert overlap.compare(training, other, print)[1]["text"] == 0


def test_slabs_find_what_one_pass_finds(tmp_path, monkeypatch):
    training, other = folders(tmp_path, PROSE[:3000], PROSE[1000:9000])
    whole = overlap.compare(training, other, lambda record: None)
    monkeypatch.setattr(overlap, "SLAB", 700)
    assert overlap.compare(training, other, lambda record: None) == whole


def test_one_command_makes_a_model_from_a_folder_of_texts(corpus, tmp_path):
    run("all", corpus, tmp_path / "own", "--minutes", 0.01)
    lm = cramzip.load(str(tmp_path / "own"))
    assert cramzip.decompress(cramzip.compress(b"Oslo", lm), lm) == b"Oslo"


def test_heads_whose_keys_differ_by_factors_are_shared_without_loss():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50, hidden_size=64, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, head_dim=16
    )
    old = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for layer in old.model.layers:
            attention = layer.self_attn
            keys = share_heads.as_complex(attention.k_proj.weight, 2)
            factors = torch.randn(8, 1, dtype=keys.dtype)  # another one for each frequency
            attention.k_proj.weight.copy_(share_heads.as_real(torch.stack([keys[0], factors * keys[0]])))
            attention.v_proj.weight[16:] = torch.randn(16, 16) @ attention.v_proj.weight[:16]
            attention.q_proj.weight.mul_(20)  # so that what is seen matters
    rows = torch.randint(1, 50, (6, 65))
    new, kept = share_heads.share(old, rows)
    assert new.config.num_key_value_heads == 1
    assert kept == [pytest.approx((1.0, 1.0), abs=1e-6)] * 2
    with torch.no_grad():
        assert torch.allclose(new(input_ids=rows).logits, old(input_ids=rows).logits, atol=1e-3)
        old.model.layers[0].self_attn.k_proj.weight[16:].normal_(std=0.02)  # as large as the others
    assert share_heads.share(old, rows)[1][0][0] < 0.9


def test_a_model_with_shared_heads_is_made_by_one_command(prepared, tmp_path):
    work, model = shutil.copytree(prepared, tmp_path / "work"), tmp_path / "model"
    run("train", work, "--tokens", 2048, *TINY, "--key-heads", 2)
    run("export", work, model)
    arguments = [str(a) for a in (model, work, tmp_path / "shared", "--steps", 2)]
    result = CliRunner().invoke(share_heads.main, arguments)
    assert result.exit_code == 0, result.output
    assert "of the keys" in result.output
    run("train", shutil.copytree(prepared, tmp_path / "again"), "--tokens", 1024, "--from", tmp_path / "shared", *TINY)
    config = json.loads((tmp_path / "again" / "config.json").read_text(encoding="utf-8"))
    assert config["num_key_value_heads"] == 1
