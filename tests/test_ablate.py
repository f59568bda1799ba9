"""examples/training/ablate.py: what is compared is what the names of the variants say."""

import json
import sys

import pytest
import torch
from click.testing import CliRunner
from models import ROOT

sys.path.insert(0, str(ROOT / "examples" / "training"))

import ablate
from ablate import WINDOW, Variant
from test_training import corpus, prepared  # noqa: F401


@torch.no_grad()
def changed_by_first_token(variant):
    """The positions whose logits depend on the first token."""
    model = ablate.made(variant, 50)
    model.set_attn_implementation("sdpa")
    for layer in model.model.layers:
        torch.nn.init.normal_(layer.self_attn.o_proj.weight, std=0.1)
    tokens = torch.randint(1, 50, (1, WINDOW + 40), generator=torch.Generator().manual_seed(0))
    before = model(input_ids=tokens).logits[0]
    tokens[0, 0] = 1 if tokens[0, 0] != 1 else 2
    changed = (before != model(input_ids=tokens).logits[0]).any(1)
    return torch.nonzero(changed)[:, 0].tolist()


def test_a_windowed_layer_sees_its_window_only():
    assert changed_by_first_token(Variant(layers=1, windowed=(0,))) == list(range(WINDOW))
    assert changed_by_first_token(Variant(layers=1)) == list(range(WINDOW + 40))


@pytest.mark.parametrize("name", ablate.VARIANTS)
def test_every_variant_has_a_shape_of_its_own(name):
    variant = ablate.VARIANTS[name]
    assert list(ablate.VARIANTS.values()).count(variant) == 1
    config = ablate.made(variant, 50).config
    assert (config.num_hidden_layers, config.hidden_act) == (variant.layers, variant.activation)


def test_what_has_been_measured_is_not_trained_again(prepared, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(ablate, "VARIANTS", {"one": Variant(layers=1), "two": Variant(layers=2)})
    monkeypatch.setattr(ablate, "PACE", ablate.PACE | {"batch": 512, "micro": 512})
    for _ in range(2):
        result = CliRunner().invoke(ablate.main, [str(prepared), str(tmp_path / "out"), "--tokens", "1000"])
        assert not result.exception
    lines = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
    assert [line["variant"] for line in lines] == ["one", "two"]
    assert all(0 < line["bits_per_byte"] < 9 and line["tokens"] >= 1000 for line in lines)
