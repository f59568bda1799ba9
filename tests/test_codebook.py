"""Vectors that lanes begin with, chosen from the codebook of a model: they come back, and never cost bytes."""

import shutil
from itertools import repeat
from pathlib import Path

import numpy as np
import pytest

import cramzip
from cramzip.coding import choosing, laned
from cramzip.coding.encode import method_of
from cramzip.config import CramConfig
from cramzip.container.records import Kind
from cramzip.errors import DamagedFileError, ModelError, WrongModelError
from cramzip.exact import CODEBOOK_NAME, codebook, lanes
from cramzip.exact.codebook import EARLIER, PRIOR_TOTAL, Codebook, Prior, decode_choices, encode_choices
from cramzip.exact.run import Options, Run
from cramzip.exact.tokencoder import TokenDecoder, TokenEncoder
from cramzip.exact.weights import Matrix, parse, serialise

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "formats" / "exact_model"
PRIMER = ROOT / "cramzip" / "models" / "primer"
TEXTS = sorted((ROOT / "examples" / "texts").iterdir())
MESSAGES = (
    b"Dear all,\n\nthe meeting is moved to Thursday at ten. Please bring the figures of last week.\n\nBest wishes\n",
    b'{"id": 17, "name": "kettle", "tags": ["kitchen", "steel"], "price": 24.9, "stock": {"shop": 3, "store": 41}}\n',
    b"import sys\n\n\ndef main():\n    for line in sys.stdin:\n        print(line.rstrip())\n",
)
TEXT = b"id, name; size|12\t3\nid, name; more|13\t3\n" * 3


def own_codebook(lm, tokens, n_each=1):
    """Entries that are embeddings of tokens: after them the model says what follows these."""
    embedding = lm.model.weights.embedding
    ids = np.array([[token] * n_each for token in tokens])
    n = len(tokens)
    priors = np.full((2, n), PRIOR_TOTAL // n)
    priors[:, 0] += PRIOR_TOTAL - priors.sum(axis=1)
    selector = Matrix(np.ones((n, lm.width), np.int8), np.ones(n, np.float32))
    return Codebook(embedding.integers[ids], embedding.scales[ids], priors, selector, np.zeros(n, np.float32))


@pytest.fixture
def lm():
    """A model with a codebook of the start token and three others."""
    found = cramzip.load(str(FOLDER))
    found.__dict__["codebook"] = own_codebook(found, [found.start, 65, 100, 10])
    return found


def kinds(blob):
    return {entry.kind for entry in cramzip.read(blob).entries}


def always(monkeypatch):
    """Let the first of the choices that are tried seem to save bits, and be taken."""
    monkeypatch.setattr(
        laned, "choose", lambda model, book, ids, n_lanes, threads: choosing.Choice([2] * n_lanes, 1, 9)
    )


@pytest.mark.parametrize("total_bits", [24, 30])
def test_choices_come_back_whatever_counts_add_up_to(lm, total_bits):
    encoder, choices = TokenEncoder(total_bits), [2, 2, 0, 3, 2]
    encode_choices(encoder, choices, lm.codebook)
    encoder.encode(7, 3)
    decoder = TokenDecoder(encoder.finish(), total_bits)
    assert decode_choices(decoder, len(choices), lm.codebook) == choices
    assert 7 <= decoder.target() < 10


@pytest.mark.parametrize("n_lanes", [1, 2, 7])
@pytest.mark.parametrize("n_each", [1, 3])
def test_tokens_come_back(lm, n_lanes, n_each):
    model, book = lm.model, own_codebook(lm, [0, 65, 100, 10], n_each)
    tokens, choices = list(range(40, 100)), [lane % 4 for lane in range(n_lanes)]
    payload = lanes.encode_lanes(model, tokens, n_lanes, Options(codebook=book, choices=choices))
    assert lanes.decode_lanes(model, payload, len(tokens), n_lanes, Options(codebook=book)) == tokens
    assert payload != lanes.encode_lanes(model, tokens, n_lanes)


def test_choices_come_back(lm):
    choices = [3, 3, 0, 1, 1, 1, 2, 0]
    encoder = TokenEncoder()
    encode_choices(encoder, choices, lm.codebook)
    decoder = TokenDecoder(encoder.finish())
    assert decode_choices(decoder, len(choices), lm.codebook) == choices
    decoder.finish()


def test_the_borders_are_those_of_the_example():
    """In section 14 of exact.md."""
    priors = np.array([[40000, 25000, 536], [10000, 50000, 5536]])
    none = np.zeros((3, 1), np.float32)
    prior = Prior(Codebook(np.zeros((3, 1, 4), np.int8), none, priors, Matrix(np.zeros((3, 4), np.int8), none), none))
    assert prior.bounds() == [0, 10239999, 16639999, 2**24]
    prior.add(1)
    assert prior.bounds() == [0, 853334, 16304809, 2**24]


def test_many_lanes_that_choose_the_same_pay_little_for_it(lm):
    encoder = TokenEncoder()
    encode_choices(encoder, [1] * 1024, lm.codebook)
    assert len(encoder.finish()) <= 3
    assert EARLIER >= PRIOR_TOTAL


@pytest.mark.parametrize("n_bytes", [1, 40, len(TEXT)])
@pytest.mark.parametrize("length", [4, 512])
def test_no_file_is_larger_with_a_codebook_than_without(lm, n_bytes, length):
    text = TEXT[:n_bytes]
    with_codebook, without = (
        cramzip.compress(text, lm, CramConfig(codebook=wanted, chunk_tokens=length)) for wanted in (True, False)
    )
    assert len(with_codebook) <= len(without)
    assert cramzip.decompress(with_codebook, lm) == text


def test_a_choice_that_does_not_pay_leaves_the_very_same_file(lm, monkeypatch):
    without = cramzip.compress(TEXT, lm, CramConfig(codebook=False))
    assert cramzip.compress(TEXT, lm) == without
    monkeypatch.setattr(laned, "choose", lambda *_: None)
    assert cramzip.compress(TEXT, lm) == without


def test_a_choice_that_pays_is_taken(lm):
    token = 100
    ids = lanes.recite(lm.model, 30, Options(vectors=lm.model.embed([token]), after_start=True))
    method = method_of(lm, CramConfig())
    payload, choice = method._tokens(ids, 1, Options())
    assert lm.codebook.vectors(choice.entries).tolist() == [lm.model.embed([token]).tolist()]
    without, none = method_of(lm, CramConfig(codebook=False))._tokens(ids, 1, Options())
    assert none is None
    assert len(payload) < len(without)
    assert choice.saved - choice.spent == 8 * (len(without) - len(payload))


def test_a_model_without_a_codebook_is_refused(lm, tmp_path):
    blob = (FOLDER.parent / "vectors" / "ok-chosen-entry-1.cram").read_bytes()
    real = cramzip.load(str(FOLDER))
    assert kinds(blob) == {Kind.CHOSEN}
    assert cramzip.decompress(blob, real)
    shutil.copytree(FOLDER, tmp_path / "bare", ignore=shutil.ignore_patterns(CODEBOOK_NAME))
    with pytest.raises(WrongModelError, match="Model_Fingerprint"):
        cramzip.decompress(blob, cramzip.load(str(tmp_path / "bare")))
    real.__dict__["codebook"] = None
    with pytest.raises(WrongModelError, match="codebook"):
        cramzip.decompress(blob, real)


def test_a_dictionary_excludes_a_codebook(lm):
    assert kinds(cramzip.compress(TEXT, lm, dictionary=TEXT)) == {Kind.CODED}


def test_a_codebook_is_read_as_it_was_written(lm, tmp_path):
    path = tmp_path / CODEBOOK_NAME
    path.write_bytes(codebook.pack(lm.codebook))
    found = codebook.read_codebook(path, lm.width)
    assert (found.vectors(range(4)) == lm.codebook.vectors(range(4))).all()
    assert (found.priors == lm.codebook.priors).all()
    with pytest.raises(ModelError, match=r"mem\.weight"):
        codebook.read_codebook(path, lm.width + 1)


BROKEN = {
    "mem.weight": lambda x: np.full_like(x, -128),
    "mem.scale": lambda x: np.full_like(x, np.nan),
    "mem.prior": lambda x: x + 1,
    "selector.weight": lambda x: x[1:],
    "selector.scale": lambda x: np.full_like(x, 2.0**17),
    "selector.bias": lambda x: None,
    "another": lambda x: np.zeros(1, np.float32),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_codebook_that_breaks_a_limit_is_none(lm, name):
    tensors, _ = parse(codebook.pack(lm.codebook))
    changed = BROKEN[name](tensors.get(name))
    broken = {other: tensor for other, tensor in tensors.items() if other != name}
    broken |= {} if changed is None else {name: changed}
    with pytest.raises(ModelError, match="codebook"):
        codebook.assemble(parse(serialise(broken, {}))[0], lm.width)


def test_what_no_entry_stands_for_is_damage(lm):
    with pytest.raises(DamagedFileError):
        decode_choices(TokenDecoder(b"\xff" * 8), 1, lm.codebook)


def test_the_likely_entries_of_every_lane_are_tried_and_the_cheapest_is_taken(lm, monkeypatch):
    """With as many candidates as there are entries, nothing is cheaper."""
    monkeypatch.setattr(choosing, "KEPT", 4)
    model, book = lm.model, lm.codebook
    tokens, n_lanes = list(range(40, 120)), 2
    found = choosing.choose(model, book, tokens, n_lanes, 1)
    rows = choosing.first_tokens(tokens, n_lanes, choosing.LOOKED_AT)
    without = lanes.costs(model, rows.reshape(-1).tolist(), n_lanes).sum()
    for entry in range(4):
        vectors = book.vectors([entry] * n_lanes)
        costs = lanes.costs(model, rows.reshape(-1).tolist(), n_lanes, Options(vectors=vectors, after_start=True)).sum()
        saved = 0.0 if found is None else found.saved - found.spent
        assert without - costs - 2 * n_lanes <= saved + 5.0  # tokens that nearly cannot be are counted coarsely


def test_lanes_that_are_too_long_for_an_entry_have_none(lm, monkeypatch):
    always(monkeypatch)
    monkeypatch.setattr(laned, "MAX_POSITIONS", 45)
    method = method_of(lm, CramConfig())
    seen = []
    monkeypatch.setattr(laned, "encode_lanes", lambda _, ids, __, options: seen.append(options.codebook) or b"")
    method._tokens(list(range(40, 70)), 1, Options())
    assert seen == [None]
    method._tokens(list(range(40, 69)), 1, Options())
    assert seen[1:] == [None, lm.codebook]


@pytest.mark.parametrize("n_tokens", [60, 66, 150, 1100])
@pytest.mark.parametrize("at_once", [7, 10**6])
def test_what_lanes_see_does_not_depend_on_how_much_is_computed_at_once(lm, n_tokens, at_once, monkeypatch):
    model, book = lm.model, own_codebook(lm, [0, 65, 100, 10], 3)
    tokens, options = [n * n % 250 for n in range(n_tokens)], Options(codebook=book, choices=[1, 2])
    payload = lanes.encode_lanes(model, tokens, 2, options)
    monkeypatch.setattr(lanes, "TOKENS_AT_ONCE", at_once)
    assert lanes.encode_lanes(model, tokens, 2, options) == payload
    assert lanes.decode_lanes(model, payload, n_tokens, 2, Options(codebook=book)) == tokens


def test_after_64_tokens_an_entry_is_seen_no_more(lm):
    model, book = lm.model, lm.codebook
    states = []
    for choice in (1, 2):
        run = Run(model, 80, 1, Options(codebook=book, choices=[choice]))
        run.fill(list(range(80)))
        ((_, cache),) = run._parts
        list(run.steps(repeat(80), lambda units, scale: list(units)))
        assert cache.position == 81
        assert cache.length == 80
        states.append(cache.integers[0, 0, :, :80].copy())  # of the first layer: by tokens and positions alone
    assert (states[0] == states[1]).all()


@pytest.fixture(scope="module")
def primer():
    return cramzip.load()


@pytest.mark.parametrize("length", [None, 64])
@pytest.mark.parametrize("text", [*(path.read_bytes() for path in TEXTS), *MESSAGES], ids=range(len(TEXTS) + 3))
def test_the_balance_of_the_built_in_codebook_is_never_negative(primer, text, length):
    with_codebook, without = (
        cramzip.compress(text, primer, CramConfig(codebook=wanted, chunk_tokens=length)) for wanted in (True, False)
    )
    assert len(with_codebook) <= len(without)
    assert (Kind.CHOSEN in kinds(with_codebook)) == (len(with_codebook) < len(without))
    assert cramzip.decompress(with_codebook, primer) == text


def test_the_built_in_codebook_pays_for_short_texts(primer):
    saved = [
        len(cramzip.compress(text, primer, CramConfig(codebook=False))) - len(cramzip.compress(text, primer))
        for text in (*(path.read_bytes() for path in TEXTS), *MESSAGES)
    ]
    assert sum(saved) > 0


def test_the_built_in_codebook_is_small(primer):
    assert (PRIMER / CODEBOOK_NAME).stat().st_size <= 300_000
    assert primer.codebook.n_entries >= 256
