"""The laboratory: its measures by hand, its searches, its records, its figures, and its command."""

import json
import math
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from models import TINY_MODEL

from cramzip.app import capacity as command
from cramzip.coding.cram import LEARNING_RATE
from cramzip.coding.view import Chunk, View
from cramzip.errors import InputOutputError, UsageError
from cramzip.laboratory import experiments, figures, forecast, measures, recipes, tables, texts
from cramzip.laboratory import lab as lab_module
from cramzip.laboratory.experiments import EXPERIMENTS
from cramzip.laboratory.lab import Laboratory
from cramzip.laboratory.measures import Outcome
from cramzip.laboratory.published import PAPER_LENGTHS, PUBLISHED
from cramzip.laboratory.recipes import PAPER, Setting
from cramzip.laboratory.search import Search
from cramzip.laboratory.store import Store
from cramzip.laboratory.trials import Plan, Trial
from cramzip.lm import profiles
from cramzip.lm.frozen import FrozenLM

PLAN = Plan(samples=2, lengths=(2, 3, 4, 6, 8), vectors=(1, 2), steps=30, paper_steps=10)
FAST = ("--samples", 2, "--lengths", "2,3,4,6,8", "--vectors", "1,2", "--steps", 30, "--paper-steps", 10)
QUICK = ("--samples", 2, "--lengths", "2,4", "--vectors", "1", "--steps", 5, "--paper-steps", 2)

VIEW = View(2**16, 0, 272)  # of the tiny model


@pytest.fixture(scope="module")
def lm():
    return FrozenLM.load(TINY_MODEL)


@pytest.fixture(scope="module")
def some_texts(lm):
    books = texts.sample(lm, texts.BOOKS, texts.shipped_books(), texts.Sampling(2, 8, 64))
    return [*books, *texts.sample(lm, texts.RANDOM, [], texts.Sampling(2, 8, 64))]


@pytest.fixture
def lab(lm, some_texts, tmp_path):
    with Store(tmp_path / "trials.jsonl") as store:
        yield Laboratory(lm, some_texts, PLAN, store)


@pytest.fixture(scope="module")
def everything(lm, tmp_path_factory):
    """A folder with the records of all experiments on the tiny model."""
    from click.testing import CliRunner

    from cramzip.app.cli import commands

    folder = tmp_path_factory.mktemp("laboratory")
    arguments = ["capacity", "-m", TINY_MODEL, *FAST, "--experiment", "all", "--plot", "-o", folder]
    result = CliRunner().invoke(commands, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.stderr
    return folder, result


def outcome(tokens, right, *, exact=False, right_after_first=None, without=0, nats=0.0, nats_without=10.0):
    after_first = right if right_after_first is None else right_after_first
    return Outcome(tokens, right, without, after_first, 0, nats, nats_without, exact, 1, 0.1)


# -- measures --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokens", "right", "decoded"), [(100, 99, True), (100, 98, False), (99, 98, False), (200, 198, True), (1, 1, True)]
)
def test_a_text_is_decoded_with_99_per_cent_of_its_tokens(tokens, right, decoded):
    assert outcome(tokens, right).is_decoded is decoded


def test_the_paper_does_not_count_the_first_token():
    one = outcome(11, 10, right_after_first=10)
    assert not one.is_decoded
    assert one.is_decoded_after_first
    assert not outcome(1, 1, right_after_first=0).is_decoded_after_first


def test_capacities_are_those_of_the_longest_text():
    some = [outcome(8, 8, exact=True), outcome(16, 16), outcome(32, 31), outcome(4, 4, exact=True)]
    assert measures.decoding_capacity(some) == 16
    assert measures.recited_capacity(some) == 8
    assert measures.recited_capacity([]) == measures.decoding_capacity([]) == 0


def test_gains_are_differences():
    one = outcome(10, 9, without=4, nats=2.5, nats_without=30.0)
    assert one.token_gain == 5
    assert one.information_gain == 27.5


def test_utilisation_of_a_published_model():
    model = next(one for one in PUBLISHED if one.name == "Llama-3.2-1B")
    gain = model.figures[texts.BOOKS].token_gain[0]
    by_hand = 426.2 / (2048 * 16 / math.log2(128256))
    assert measures.utilisation(gain, model.width, model.vocabulary_size) == pytest.approx(by_hand)
    assert measures.utilisation(gain, model.width, model.vocabulary_size, 2) == pytest.approx(by_hand / 2)


def test_mean_and_standard_deviation_of_a_sample():
    assert measures.mean_std([2, 4]) == (3, pytest.approx(math.sqrt(2)))
    assert measures.mean_std([5]) == (5, 0)


def test_the_threshold_is_where_texts_begin_to_cost_something():
    before = [10, 20, 30, 40, 50]
    assert measures.threshold(before, [0, 0, 5, 15, 25]) == pytest.approx(25, abs=0.05)
    assert measures.threshold(before, before) == pytest.approx(0)


def test_cosines():
    first = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert measures.cosine(first, 3 * first) == pytest.approx(1)
    assert measures.cosine(first, first.flip(0)) == pytest.approx(0)


def test_what_a_model_says_of_a_text_is_what_its_logits_say(lm):
    chunk, mem = Chunk([80, 81, 82], [70]), torch.randn(2, lm.width)
    inputs = torch.cat([mem, lm.embed(torch.tensor([70, 80, 81]))])
    logits = lm.logits(inputs[None])[0, -3:]
    reading = measures.read(lm, VIEW, chunk, mem)
    expected = -logits.log_softmax(-1)[range(3), chunk.tokens]
    np.testing.assert_allclose(reading.nats, expected.numpy(), rtol=1e-4)
    assert reading.right.tolist() == (logits.argmax(-1) == torch.tensor([80, 81, 82])).tolist()
    without = measures.read(lm, VIEW, chunk, None)
    assert without.nats.sum() == pytest.approx(lm.score([[80, 81, 82]], [[70]])[0].sum(), rel=1e-4)


def test_recited_is_what_greedy_decoding_says(lm):
    mem = torch.randn(1, lm.width, generator=torch.Generator().manual_seed(1))
    said = [int(lm.logits(mem[None])[0, -1].argmax())]
    for _ in range(4):
        inputs = torch.cat([mem, lm.embed(torch.tensor(said))])
        said.append(int(lm.logits(inputs[None])[0, -1].argmax()))
    assert measures.recited(lm, VIEW, [said, [*said[:-1], said[-1] ^ 1], said[:2]], [mem, mem, mem]) == [
        True,
        False,
        True,
    ]


# -- texts -----------------------------------------------------------------------------------------


def test_the_word_list_is_of_4000_lowercase_words():
    words = texts.words()
    assert len(set(words)) == len(words) == 4000
    assert all(word.isascii() and word.isalpha() and word.islower() and len(word) > 1 for word in words)


def test_the_same_seed_gives_the_same_texts_and_another_seed_others(lm):
    for kind, documents in ((texts.BOOKS, texts.shipped_books()), (texts.RANDOM, [])):
        first, again, other = (texts.sample(lm, kind, documents, texts.Sampling(2, 50, 10, seed)) for seed in (0, 0, 1))
        assert [text.digest for text in first] == [text.digest for text in again]
        assert not {text.digest for text in first} & {text.digest for text in other}
        assert first[0].digest != first[1].digest


def test_a_text_goes_on_where_what_is_before_it_ends(lm):
    document = b" ".join(b"%d" % n for n in range(3000))
    (text,) = texts.sample(lm, texts.FILES, [("numbers", document)], texts.Sampling(1, 50, 10))
    assert (len(text.before), len(text.ids)) == (10, 50)
    assert lm.tokenizer.decode([*text.before, *text.ids]) in document


def test_a_text_that_is_too_short_is_an_error(lm):
    with pytest.raises(UsageError, match="too short"):
        texts.sample(lm, texts.FILES, [("short.txt", b"the")], texts.Sampling(1, 50, 10))


def test_what_is_shipped_is_long_enough_for_small_models(lm):
    shipped = texts.shipped_books()
    assert len(shipped) >= 6
    assert all(len(passage) > 5000 for _, passage in shipped)


# -- solutions -------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", [recipes.OURS, recipes.PAPER])
def test_both_recipes_lower_the_cost_of_a_text(lm, recipe):
    chunks = [Chunk([90, 91, 92, 93]), Chunk([100, 101])]
    setting = Setting(recipe, vectors=2, steps=100, exact=False)
    starts = [solution.mem for solution in recipes.optimise(lm, chunks, replace(setting, steps=1))]
    for chunk, start, solution in zip(chunks, starts, recipes.optimise(lm, chunks, setting), strict=True):
        assert solution.mem.shape == (2, lm.width)
        after_first = slice(1, None)
        before, after = (measures.read(lm, VIEW, chunk, mem).nats[after_first].sum() for mem in (start, solution.mem))
        assert after < before
        assert 0 < solution.steps <= setting.steps
        assert solution.seconds > 0


def test_a_text_by_the_papers_recipe_does_not_depend_on_its_batch(lm):
    setting = Setting(PAPER, steps=20)
    chunks = [Chunk([90, 91, 92, 93]), Chunk([100, 101])]
    together = recipes.optimise(lm, chunks, setting)
    alone = [recipes.optimise(lm, [chunk], setting)[0] for chunk in chunks]
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one.mem, other.mem, rtol=1e-3, atol=1e-4)


def test_the_papers_recipe_does_not_learn_the_first_token(lm):
    one, more = (recipes.optimise(lm, [Chunk([80])], Setting(PAPER, steps=steps))[0] for steps in (1, 50))
    assert one.steps == more.steps == 1
    assert torch.equal(one.mem, more.mem)


def test_the_papers_recipe_stops_when_all_that_it_counts_is_right(lm):
    mem = torch.randn(1, lm.width, generator=torch.Generator().manual_seed(1))
    token = int(lm.logits(torch.cat([mem, lm.embed(torch.tensor([80]))])[None])[0, -1].argmax())
    (solution,) = recipes.optimise(lm, [Chunk([80, token])], Setting(PAPER, steps=500))
    reading = measures.read(lm, VIEW, Chunk([80, token]), solution.mem)
    assert solution.steps < 500
    assert reading.right[1]


# -- records ---------------------------------------------------------------------------------------


def test_records_are_found_again_by_their_keys(tmp_path):
    path = tmp_path / "sub" / "records.jsonl"
    with Store(path) as store:
        store.add({"key": {"a": 1, "b": 2}, "value": 3})
        store.add({"key": {"a": 2}, "value": 4})
        store.add({"key": {"a": 2}, "value": 5})
    with Store(path) as store:
        assert store.get({"b": 2, "a": 1})["value"] == 3
        assert store.get({"a": 2})["value"] == 5
        assert store.get({"a": 3}) is None
        assert [record["value"] for record in store] == [3, 5]


def test_a_record_that_is_there_already_is_not_written_again(tmp_path):
    path = tmp_path / "records.jsonl"
    with Store(path) as store:
        for _ in range(2):
            store.add({"key": 1, "value": 3})
    assert len(path.read_text().splitlines()) == 1


def test_a_line_that_was_cut_off_is_dropped(tmp_path):
    path = tmp_path / "records.jsonl"
    with Store(path) as store:
        for key in range(3):
            store.add({"key": key})
    path.write_bytes(path.read_bytes()[:-5])
    with Store(path) as store:
        assert [record["key"] for record in store] == [0, 1]
        store.add({"key": 7})
    with Store(path) as store:
        assert [record["key"] for record in store] == [0, 1, 7]


def test_a_record_that_there_is_no_room_for_leaves_those_before_it(tmp_path, little_room):
    path = tmp_path / "records.jsonl"
    with Store(path) as store:
        store.add({"key": 1})
        whole = path.read_bytes()
        with little_room(len(whole) + 10), pytest.raises(OSError, match="too large") as caught:
            store.add({"key": 2, "value": "x" * 1000})
        assert caught.value.filename == str(path)
        assert path.read_bytes() == whole
        store.add({"key": 3})  # there is room again
    with Store(path) as store:
        assert [record["key"] for record in store] == [1, 3]


@pytest.mark.parametrize("line", ["no record\n", "[]\n", '{"value": 1}\n', "\n"])
def test_a_file_of_something_else_is_never_touched(tmp_path, line):
    path = tmp_path / "records.jsonl"
    path.write_text(line)
    with pytest.raises(InputOutputError, match="no records"):
        Store(path)
    assert path.read_text() == line


def test_only_one_process_measures_into_a_folder(tmp_path):
    path = tmp_path / "records.jsonl"
    with Store(path), pytest.raises(InputOutputError, match="locked"):
        Store(path)
    with Store(path), Store(path, read_only=True) as reader:
        assert list(reader) == []


# -- searching -------------------------------------------------------------------------------------


@pytest.mark.parametrize("begin", [0, 1, 5, 40, 1000])
@pytest.mark.parametrize("limit", [0, 1, 7, 30, 99])
def test_a_search_finds_the_longest_length_that_passes(begin, limit):
    lengths = [1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 80]
    search, asked = Search(lengths, begin), []
    while (length := search.next()) is not None:
        asked.append(length)
        search.answer(length, passed=length <= limit)
    assert search.found == max((length for length in lengths if length <= limit), default=0)
    assert len(asked) == len(set(asked)) <= 2 * math.ceil(math.log2(len(lengths))) + 1


def test_a_search_without_lengths_ends():
    search = Search([], 3)
    assert search.next() is None
    assert search.found == 0


def test_lengths_fit_into_the_text_and_the_positions_of_the_model(lab, some_texts):
    assert lab.lengths(some_texts[0], PLAN.setting) == [2, 3, 4, 6, 8]
    short = replace(some_texts[0], ids=some_texts[0].ids[:5])
    assert lab.lengths(short, PLAN.setting) == [2, 3, 4]
    assert lab.lengths(some_texts[0], replace(PLAN.setting, vectors=lab.lm.context - 3)) == [2, 3]
    with pytest.raises(UsageError, match="no length fits"):
        lab.length_near(some_texts[0], 3, replace(PLAN.setting, vectors=lab.lm.context))


def test_capacity_is_what_the_trials_say(lab, some_texts):
    for row, text in zip(lab.capacities(some_texts, PLAN.setting), some_texts, strict=True):
        exact = [
            record["key"]["tokens"]
            for record in lab.store
            if record["key"]["text"] == text.digest and record["outcome"]["recited"]
        ]
        assert row["recited_capacity"] == max(exact, default=0)
        assert row["decoding_capacity"] >= row["recited_capacity"]
        assert row["decoding_capacity_after_first"] >= row["recited_capacity"]
        assert row["digest"] == text.digest
    assert any(row["recited_capacity"] for row in lab.capacities(some_texts, PLAN.setting))


def test_nothing_is_measured_twice(lab, monkeypatch):
    rows = EXPERIMENTS["capacity"](lab)
    monkeypatch.setattr(lab_module, "optimise", lambda *arguments: pytest.fail("measured again"))
    again = Laboratory(lab.lm, lab.texts, PLAN, lab.store)
    assert EXPERIMENTS["capacity"](again) == rows
    assert len(EXPERIMENTS["utilisation"](again)) == len(rows)


@pytest.mark.parametrize("change", [{"steps": 31}, {"seed": 1}, {"bits": "2"}, {"learning_rate": 1.0}, {"vectors": 2}])
def test_another_setting_is_another_trial(lab, some_texts, change):
    trial = Trial(some_texts[0], 2, PLAN.setting)
    lab.outcomes([trial])
    n_records = len(list(lab.store))
    lab.outcomes([trial, replace(trial, setting=replace(trial.setting, **change))])
    assert len(list(lab.store)) == n_records + 1


def test_vectors_that_are_kept_are_those_that_were_measured(lab, some_texts):
    trial = Trial(some_texts[0], 2, PLAN.setting, keeps_vectors=True)
    (one,), (mem,) = lab.outcomes([trial]), lab.solutions([trial])
    assert measures.read(lab.lm, VIEW, trial.chunk, mem).nats.sum() == pytest.approx(one.nats, abs=1e-3)


def test_context_is_what_stands_right_before(some_texts):
    trial = Trial(some_texts[0], 3, PLAN.setting, n_context=4)
    assert trial.chunk == Chunk(some_texts[0].ids[:3], some_texts[0].before[-4:])
    assert replace(trial, n_context=0).chunk.context == ()


def test_an_interrupted_experiment_goes_on_where_it_was(lm, some_texts, tmp_path, monkeypatch):
    with Store(tmp_path / "whole.jsonl") as store:
        rows = EXPERIMENTS["vectors"](Laboratory(lm, some_texts, PLAN, store))
        n_trials = len(list(store))
    real, counts = recipes.optimise, {"left": 1, "done": 0}

    def interrupted(*arguments):
        if not counts["left"]:
            raise KeyboardInterrupt
        counts["left"] -= 1
        solved = real(*arguments)
        counts["done"] += len(solved)
        return solved

    monkeypatch.setattr(lab_module, "optimise", interrupted)
    path = tmp_path / "part.jsonl"
    with Store(path) as store, pytest.raises(KeyboardInterrupt):
        EXPERIMENTS["vectors"](Laboratory(lm, some_texts, PLAN, store))
    assert 0 < counts["done"] < n_trials
    counts["left"] = 1000
    with Store(path) as store:
        resumed = EXPERIMENTS["vectors"](Laboratory(lm, some_texts, PLAN, store))
    assert counts["done"] == n_trials

    def without_time(rows):
        return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]

    assert without_time(resumed) == without_time(rows)


@pytest.mark.parametrize("name", ["capacity", "vectors", "recipe"])
def test_texts_without_an_allowed_length_are_an_error(lm, some_texts, tmp_path, name):
    with Store(tmp_path / "trials.jsonl") as store, pytest.raises(UsageError, match="no length fits"):
        EXPERIMENTS[name](Laboratory(lm, some_texts, replace(PLAN, lengths=(1,)), store))


def test_the_same_record_is_written_once(tmp_path):
    with Store(tmp_path / "records.jsonl") as store:
        for _ in range(2):
            store.add({"key": {"name": "a"}, "lengths": (1, 2)})
    assert (tmp_path / "records.jsonl").read_text().count("\n") == 1


# -- what is found ---------------------------------------------------------------------------------


def test_the_best_rate_is_the_default_unless_another_is_noticeably_better():
    def rows(**right):
        rates = {"slow": 1.0, "default": LEARNING_RATE, "fast": 16.0}
        return [{"learning_rate": rates[name], "right": share, "tokens": 100} for name, share in right.items()]

    assert experiments.best_rate(rows(slow=60, default=50, fast=70)) == 16
    assert experiments.best_rate(rows(slow=60, default=50)) == 1
    assert experiments.best_rate(rows(slow=60, default=58, fast=50)) == LEARNING_RATE
    assert experiments.best_rate([]) == LEARNING_RATE


def test_bits_per_vector_are_of_the_first_kind_of_text():
    rows = [
        {"kind": "books", "recited_nats": 10 * math.log(2), "vectors": 1},
        {"kind": "books", "recited_nats": 60 * math.log(2), "vectors": 2},
        {"kind": "random words", "recited_nats": 1000, "vectors": 1},
    ]
    assert experiments.bits_per_vector(rows) == pytest.approx(20)


def test_all_experiments_run_on_a_tiny_model(everything):
    folder, _ = everything
    found = [json.loads(line) for line in (folder / "findings.jsonl").read_text().splitlines()]
    assert [one["key"]["experiment"] for one in found] == list(EXPERIMENTS)
    rows = {one["key"]["experiment"]: one["rows"] for one in found}
    assert {row["kind"] for row in rows["capacity"]} == {"books", "random words"}
    assert {row["vectors"] for row in rows["vectors"]} == {1, 2}
    assert {row["recipe"] for row in rows["recipe"]} == {"cramzip", "paper"}
    assert {row["bits"] for row in rows["bits"]} >= {1.0, 16.0}
    assert {row["learning_rate"] for row in rows["learning-rate"]} == set(experiments.RATES)
    assert all(row["nats"] >= 0 and row["threshold"] >= 0 for row in rows["cross-entropy"])
    assert all(-1 <= row["cosine"] <= 1 for row in rows["similarity"])
    assert all(len(row["right"]) == experiments.POINTS for row in rows["interpolation"])


def test_figures_are_drawn_as_png_svg_and_pdf(everything):
    folder, _ = everything
    drawn = {path.stem for path in folder.glob("*.png")}
    assert drawn >= set(EXPERIMENTS) - {"similarity", "interpolation"}  # a tiny model may have no solutions to compare
    for name in drawn:
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (folder / f"{name}.svg").stat().st_size > 1000
        assert (folder / f"{name}.pdf").read_bytes().startswith(b"%PDF")


def test_every_experiment_has_a_figure():
    assert list(figures.FIGURES) == list(EXPERIMENTS)


def finding(experiment, rows, name="toy"):
    key = {"experiment": experiment, "model": name}
    return {"key": key, "name": name, "width": 8, "vocabulary_size": 16, "rows": rows}


def test_solutions_are_drawn_of_several_models_side_by_side(tmp_path):
    cosines = [{"same": same, "cosine": value} for same in (True, False) for value in (0.0, 0.1, 0.2)]
    lines = [{"right": [1.0, 0.4, 1.0]}, {"right": [1.0, 0.6, 1.0]}]
    found = [finding("similarity", cosines, name) for name in ("a", "b")] + [finding("interpolation", lines)]
    paths = figures.draw(found, tmp_path)
    assert sorted(path.name for path in paths) == sorted(path.name for path in tmp_path.iterdir())
    assert len(paths) == 6


def test_without_matplotlib_figures_are_a_usage_error(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError, match=r"cramzip\[plots\]"):
        figures.draw([], tmp_path)


def capacity_row(kind, decoded, recited, gain, nats):
    names = ("decoding_capacity_after_first", "recited_capacity", "token_gain", "information_gain")
    return {"kind": kind, "at_least": recited == 60, **dict(zip(names, (decoded, recited, gain, nats), strict=True))}


def test_figures_that_there_is_no_room_for_leave_the_earlier_ones(tmp_path, little_room):
    found = [finding("interpolation", [{"right": [1.0, 0.4, 1.0]}])]
    before = {path: path.read_bytes() for path in figures.draw(found, tmp_path)}
    with little_room(100), pytest.raises(OSError, match="too large") as caught:
        figures.draw(found, tmp_path)
    assert Path(caught.value.filename) in before
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_table_that_there_is_no_room_for_leaves_the_earlier_one(cramzip, folder, little_room):
    with Store(folder / "lab" / command.FINDINGS) as findings:
        findings.add(finding("capacity", [capacity_row("books", 90, 60, 50, 300.0)], "tiny"))
    (folder / "lab" / command.TABLE).write_text("the table before")
    with little_room(20):
        result = cramzip("capacity", "--plot", "-o", "lab")
    assert (result.exit_code, result.stderr) == (1, "cramzip: lab/table.md: File too large\n")
    assert (folder / "lab" / command.TABLE).read_text() == "the table before"
    assert len(list((folder / "lab").iterdir())) == 2


def test_the_table_has_a_row_for_every_model_of_the_paper():
    (table,) = tables.capacity_tables([])
    for model in PUBLISHED:
        (row,) = (line for line in table.markdown.splitlines() if line.startswith(f"| {model.name} "))
        assert str(model.figures[texts.BOOKS].capacity) in row
        assert row.count("not yet measured") == 4


def test_the_table_puts_what_was_measured_beside_what_was_published():
    rows = [capacity_row("books", 90, 60, 50, 300.0), capacity_row("books", 70, 40, 70, 500.0)]
    rows.append(capacity_row("random words", 7, 7, 7, 7.0))
    found = [finding("capacity", rows, "pythia-160m"), finding("capacity", rows, "other")]
    of_books, of_words = tables.capacity_tables(found)
    assert of_words.title == "Random words, n = 1 here"
    books = of_books.markdown.splitlines()
    expected = "| Pythia-160M | 768 | 80 | ≥ 90 (80.0 ± 14.1) | 60 (50.0 ± 14.1) | 70.9 ± 11.0 | 60.0 ± 14.1 |"
    (row,) = (line for line in books if "Pythia-160M" in line)
    assert row == f"{expected} 396.4 ± 46.0 | 400.0 ± 141.4 |"
    (row,) = (line for line in books if line.startswith("| other | 8 | - | ≥ 90"))
    assert row.endswith("| - | 400.0 ± 141.4 |")
    assert "| 7 | 7 | 61.3 | 7.0 | 501 | 7.0 |" in of_words.markdown  # one text: no deviation


def test_a_terminal_gets_a_row_for_what_is_published_and_one_for_what_was_measured():
    rows = [capacity_row("books", 90, 60, 50, 300.0), capacity_row("books", 70, 40, 70, 500.0)]
    (table,) = tables.capacity_tables([finding("capacity", rows, "pythia-160m")])
    assert list(table.lines[0].brief()) == [
        ["Pythia-160M, paper", "768", "80", "-", "70.9 ± 11.0", "396.4 ± 46.0"],
        ["Pythia-160M", "768", "90", "60", "60.0 ± 14.1", "400.0 ± 141.4"],
    ]
    assert len(list(table.lines[1].brief())) == 1


def test_a_forecast_plays_the_searches_through_and_takes_no_trial(lab):
    found = {
        names: forecast.forecast(lab, names) for names in [("similarity",), ("capacity",), ("capacity", "vectors")]
    }
    assert found["similarity",] is None
    assert found["capacity",].seconds > 0
    assert found["capacity", "vectors"].memory > 2**20
    assert not len(list(lab.store))


def test_a_long_measuring_is_foretold(cramzip, folder, monkeypatch):
    monkeypatch.setattr(command, "LEAST_FORETOLD", 1)
    monkeypatch.setattr(command, "LONG", 0)
    result = cramzip("capacity", "-m", TINY_MODEL, *QUICK, "--learning-rate", 1, "-o", "lab")
    assert result.exit_code == 0, result.stderr
    assert "hours, and up to " in result.stderr.splitlines()[1]


def test_the_papers_grid_gives_way_to_what_is_asked_for(cramzip, folder, monkeypatch):
    asked = []
    monkeypatch.setattr(command, "measure", lambda load, request, *rest, **options: asked.append(request))
    monkeypatch.setattr(command, "report", lambda *given, **options: "")
    result = cramzip("capacity", "--paper", "--samples", 3, "-o", "lab")
    assert result.exit_code == 0, result.stderr
    (request,) = asked
    assert request.experiments == ("capacity", "vectors")
    assert request.plan.samples == 3
    assert (request.plan.steps, request.plan.lengths, request.plan.vectors[-1]) == (5000, PAPER_LENGTHS, 32)


# -- the command -----------------------------------------------------------------------------------


def test_the_command_prints_the_tables_and_keeps_them(everything):
    folder, result = everything
    assert result.stdout == (folder / "table.md").read_text(encoding="utf-8")
    assert "| model | 16 | - |" in result.stdout
    assert "Random words, n = " in result.stdout


def test_plot_alone_draws_again_and_measures_nothing(cramzip, everything, monkeypatch):
    folder, result = everything
    (folder / "capacity.png").unlink()
    monkeypatch.setattr("cramzip.lm.models.load", lambda *arguments, **options: pytest.fail("loaded a model"))
    again = cramzip("capacity", "--plot", "-o", folder)
    assert again.exit_code == 0
    assert again.stdout == result.stdout
    assert (folder / "capacity.png").exists()


def test_files_and_newer_text_are_kinds_of_their_own(cramzip, folder):
    Path("a.txt").write_bytes(b"It was the best of times, it was the worst of times. " * 20)
    result = cramzip(
        "capacity", "-m", TINY_MODEL, *QUICK, "-o", "lab", "--new", "a.txt", "--kinds", "new,files", "a.txt"
    )
    assert result.exit_code == 0, result.stderr
    one = json.loads(Path("lab/findings.jsonl").read_text().splitlines()[-1])
    assert [row["kind"] for row in one["rows"]] == ["new", "new", "files", "files"]


def test_a_killed_command_goes_on_where_it_was(cramzip, folder):
    arguments = ["capacity", "-m", TINY_MODEL, *FAST, "--experiment", "vectors", "-o", "lab", "--batch-size", 1]
    arguments += ["--learning-rate", 4]
    trials = Path("lab/trials.jsonl")
    run = [sys.executable, "-m", "cramzip", *map(str, arguments)]
    process = subprocess.Popen(run, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (trials.exists() and trials.read_bytes().count(b"\n") >= 3):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = trials.read_bytes()
    assert before.count(b"\n") >= 3
    assert not Path("lab/findings.jsonl").exists() or not Path("lab/findings.jsonl").stat().st_size
    finished = cramzip(*arguments)
    assert finished.exit_code == 0
    assert "vectors: done" in finished.stderr
    assert trials.read_bytes().startswith(before[: before.rindex(b"\n") + 1])
    keys = [json.dumps(json.loads(line)["key"]) for line in trials.read_text().splitlines()]
    assert len(keys) == len(set(keys))


def test_a_profile_is_saved_and_then_used(cramzip, folder, lm, monkeypatch):
    from cramzip.coding.parameters import expected

    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / "home"))
    measured = ("--experiment", "capacity,learning-rate", "-o", "lab", "--save-profile")
    assert cramzip("capacity", "-m", TINY_MODEL, *FAST, *measured).exit_code == 0
    profile = profiles.find(lm.fingerprint)
    with Store(Path("lab/findings.jsonl"), read_only=True) as findings:
        found = {one["key"]["experiment"]: one["rows"] for one in findings}
    assert profile.bits_per_vector == pytest.approx(experiments.bits_per_vector(found["capacity"]), abs=0.1)
    assert profile.learning_rate == experiments.best_rate(found["learning-rate"])
    assert expected(lm).capacity == profile.bits_per_vector
    with Store(Path("lab/trials.jsonl"), read_only=True) as trials:
        lessons = [one for one in trials if one["key"]["keeps_vectors"]]
    mems = [lab_module._unpacked(one["mem"], lm.width)[0] for one in lessons if one["outcome"]["recited"]]
    assert len(lessons) == experiments.LESSONS
    assert len(mems) >= experiments.LEAST_LESSONS
    assert profile.origin == pytest.approx((torch.stack(mems).mean(0) / lm.embedding_scale).tolist(), abs=1e-2)


def test_a_profile_is_of_the_plan_that_the_capacity_was_measured_with(cramzip, folder, lm, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / "home"))
    measure = ("capacity", "-m", TINY_MODEL, *FAST, "-o", "lab", "--learning-rate")
    assert cramzip(*measure, 2).exit_code == 0
    assert cramzip(*measure, 1, "--experiment", "learning-rate", "--bits", 2, "--save-profile").exit_code == 0
    with Store(Path("lab/trials.jsonl"), read_only=True) as trials:
        lessons = [one["key"] for one in trials if one["key"]["keeps_vectors"]]
    assert {(key["learning_rate"], key["bits"]) for key in lessons} == {(2.0, "16")}
    assert profiles.find(lm.fingerprint).learning_rate == 2
    fail = cramzip(*measure, 2, "--experiment", "learning-rate", "--kinds", "random words", "--save-profile")
    assert fail.exit_code == 2
    assert "measured with books" in fail.stderr


def test_there_is_no_origin_where_few_vectors_recite(lab, monkeypatch):
    monkeypatch.setattr(experiments, "LEAST_LESSONS", 1000)
    assert experiments.origin(lab, lab.main_texts) == ()


@pytest.mark.parametrize(
    ("options", "profile", "rate", "looked_for"),
    [((), None, 8.0, True), ((), 2.0, 2.0, False), (("--learning-rate", 0.5), 2.0, 0.5, False)],
    ids=["looked for", "of the profile", "given"],
)
def test_the_learning_rate(cramzip, folder, lm, monkeypatch, options, profile, rate, looked_for):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / "home"))
    monkeypatch.setattr(command, "best_rate", lambda rows: 8.0)
    if profile:
        profiles.save(profiles.Profile(lm.fingerprint.hex(), "tiny", 9.0, profile, 1.0, 0.0, {}))
    result = cramzip("capacity", "-m", TINY_MODEL, *QUICK, "-o", "lab", *options)
    assert result.exit_code == 0
    found = [json.loads(line) for line in Path("lab/findings.jsonl").read_text().splitlines()]
    assert [one["key"]["experiment"] for one in found] == ["learning-rate"] * looked_for + ["capacity"]
    assert found[-1]["plan"]["learning_rate"] == rate


BAD = {
    "unknown experiment": (("--experiment", "nonsense"), 2, "nonsense"),
    "unknown kind": (("--kinds", "poems"), 2, "poems"),
    "kind without texts": (("--kinds", "new"), 2, "no texts of the kind 'new'"),
    "lengths that are no numbers": (("--lengths", "1,x"), 2, "--lengths"),
    "lengths of nothing": (("--lengths", "0"), 2, "--lengths"),
    "no vectors": (("--vectors", "0,1"), 2, "--vectors"),
    "no samples": (("--samples", 0), 2, "--samples"),
    "unknown bits": (("--bits", "5"), 2, "--bits"),
    "rate of nothing": (("--learning-rate", 0), 2, "--learning-rate"),
    "missing book": (("--books", "missing.txt"), 1, "missing.txt"),
    "missing model": (("-m", "missing/"), 4, "missing"),
    "nothing to draw": (("--plot", "-o", "empty"), 1, "nothing has been measured"),
    "profile of nothing": (("-m", TINY_MODEL, *QUICK, "--experiment", "context", "--save-profile"), 2, "capacity"),
}


@pytest.mark.parametrize(("arguments", "code", "said"), BAD.values(), ids=BAD)
def test_bad_arguments_are_one_line_and_an_exit_code(cramzip, arguments, code, said):
    result = cramzip("capacity", "-q", *arguments)
    assert result.exit_code == code, result.stderr
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert said in line


def test_a_folder_that_another_process_measures_into_is_an_error(cramzip, folder):
    with Store(Path("lab/trials.jsonl")):
        result = cramzip("capacity", "-m", TINY_MODEL, *FAST, "-o", "lab")
    assert result.exit_code == 1
    assert "locked" in result.stderr


def test_lists_of_the_paper(cramzip):
    given = {"lengths": (), "vectors": (), "samples": 1, "steps": 1, "paper_steps": 1, "seed": 0, "bits": "16"}
    plan = command.plan_of(given)
    assert plan.lengths == PAPER_LENGTHS
    assert plan.vectors == experiments.PAPER_VECTORS
    default = command.plan_of(given | {"lengths": None, "vectors": (3,)})
    assert (default.lengths, default.vectors) == (Plan.lengths, (3,))


def test_options_name_the_experiments_and_kinds_that_there_are():
    from cramzip.app.values import EXPERIMENT_NAMES, KIND_NAMES

    assert tuple(EXPERIMENTS) == EXPERIMENT_NAMES
    assert texts.KINDS == KIND_NAMES
