"""examples/training: the vectors of a codebook, trained together with the model."""

import json
import shutil
import sys

import numpy as np
import pytest
import torch
from models import ROOT

from cramzip.exact.codebook import PRIOR_TOTAL, Codebook, pack, read_codebook
from cramzip.exact.weights import Matrix, quantise

sys.path.insert(0, str(ROOT / "examples" / "training"))

from mems import EVERY, Mems, begun_nll, with_vectors
from recipe import make_model
from rows import BEGUN
from test_training import TINY, corpus, prepared, rows_of, run  # noqa: F401
from texts import BOS_ID

WIDTH, VOCABULARY = 32, 300


@pytest.fixture
def codebook():
    """Four entries of two vectors; the selector thinks them all alike."""
    rng = np.random.default_rng(5)
    matrix = quantise(rng.standard_normal((8, WIDTH)).astype(np.float32))
    selector = Matrix(np.zeros((4, WIDTH), np.int8), np.ones(4, np.float32))
    priors = np.full((2, 4), PRIOR_TOTAL // 4)
    shape = (4, 2)
    return Codebook(
        matrix.integers.reshape(*shape, WIDTH), matrix.scales.reshape(shape), priors, selector, np.zeros(4, np.float32)
    )


@pytest.fixture
def model():
    """A model whose head is not that of a new one, which would find every token as likely."""
    model = make_model(VOCABULARY, 1, WIDTH, 2, 1, 64)
    for layer in model.model.layers:
        torch.nn.init.normal_(layer.self_attn.o_proj.weight, std=0.3)
        torch.nn.init.normal_(layer.mlp.down_proj.weight, std=0.3)
    return model


def some_rows(n=6, length=20):
    rows = torch.randint(1, VOCABULARY, (n, length + 1), generator=torch.Generator().manual_seed(2))
    rows[:, 0] = BOS_ID
    rows[-1, 9:] = -1
    return rows


def test_a_row_with_vectors_costs_what_its_logits_say(model, codebook):
    rows = some_rows()
    vectors = torch.from_numpy(codebook.vectors([0, 1, 2, 3, 0, 1]))
    costs = begun_nll(model, rows, vectors)
    embedded = model.get_input_embeddings()(rows[:1])
    logits = model(inputs_embeds=torch.cat([embedded[:, :1], vectors[:1], embedded[:, 1:]], 1)).logits[0]
    expected = -logits.log_softmax(-1)[2:-1].gather(1, rows[0, 1:, None])[:, 0]
    assert torch.allclose(costs[0], expected, atol=1e-5)
    assert (costs[-1, 8:] == 0).all()


def test_the_entry_chosen_is_the_cheapest_that_is_tried(model, codebook, monkeypatch):
    monkeypatch.setattr("mems.TRIED", 4)
    rows, mems = some_rows(), Mems(codebook, model)
    with torch.no_grad():
        each = [begun_nll(model, rows, mems.table[[k] * 6].unflatten(1, (2, -1))).sum(1) for k in range(4)]
    assert mems.chosen(model, rows).tolist() == torch.stack(each).argmin(0).tolist()


def test_model_and_entries_get_gradients_though_others_were_tried_before(model, codebook):
    mems, rows = Mems(codebook, model), some_rows()
    with torch.autocast("cpu", torch.bfloat16):
        loss = mems.costs(model, rows).sum()
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    moved = mems.table.grad.coalesce().indices()[0].tolist()
    assert sorted(set(mems.chosen(model, rows).tolist())) == moved


def test_vectors_are_quantised_anew(codebook):
    table = 3 * torch.from_numpy(codebook.vectors(range(4))).flatten(1)
    assert np.allclose(with_vectors(codebook, table).vectors([2]), 3 * codebook.vectors([2]), atol=0.05)


def test_rows_for_vectors_often_begin_as_a_text_does(prepared):  # noqa: F811
    rows = rows_of(prepared, {})
    drawn = rows.draw_begun(3, 64 * BEGUN)
    assert drawn.shape == (64, BEGUN + 1)
    assert (drawn[:, 0] == BOS_ID).all()
    starts = {tuple(rows.stream[i : i + 5].tolist()) for i in rows.beginnings}
    share = np.mean([tuple(row[1:6].tolist()) in starts for row in drawn])
    assert 0.2 < share < 0.7


def test_a_training_with_a_codebook_goes_on_and_exports_it(prepared, codebook, tmp_path):  # noqa: F811
    prepared = shutil.copytree(prepared, tmp_path / "work")
    (tmp_path / "given").write_bytes(pack(codebook))
    for tokens in 3000 * EVERY, 5000 * EVERY:
        run("train", prepared, "--tokens", tokens, "--codebook", tmp_path / "given", *TINY)
    run("export", prepared, tmp_path / "model")
    found = read_codebook(tmp_path / "model" / "mem.safetensors", WIDTH)
    assert not np.array_equal(found.vectors(range(4)), codebook.vectors(range(4)))
    assert np.array_equal(found.priors, codebook.priors)
    assert json.loads((prepared / "recipe.json").read_text())["codebook"] == "given"
