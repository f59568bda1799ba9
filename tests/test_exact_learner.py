"""Learning while decoding: the same bits from the library and from the reference, and what a learner may never do."""

import random
import re
import sys
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from models import ROOT
from test_exact_llama import GROUPED, PLAIN, PRIMER, random_model, random_tokens
from test_exact_reference import FORMATS, SPECIFICATION, read_model, reference

from cramzip.errors import DamagedFileError
from cramzip.exact import contexts, lanes, probe, weights
from cramzip.exact.arithmetic import stretches, table_hash
from cramzip.exact.contexts import ALL, N_CONTEXTS, Followers, Kinds, Place
from cramzip.exact.learner import AGAINST, AGAINST_MEANS, FOR, FOR_MEANS, Learner
from cramzip.exact.probabilities import TOTAL, cumulated
from cramzip.exact.run import Options
from cramzip.lm.tokens import ByteExactTokenizer, read_tokenizer

sys.path.insert(0, str(FORMATS))

import exact
import learner as specified

LOG = b"".join(
    b"2026-03-%02d 10:%02d:07 status half-configured lib%s:amd64 1.%d-2, %d kB\n"
    % (n // 9 + 1, n % 60, name, n, n * 37)
    for n, name in enumerate([b"c6", b"gcc", b"z1", b"ssl", b"z1"] * 16)
)
BOOK = (ROOT / "cramzip" / "laboratory" / "books.txt").read_bytes()


@pytest.fixture(scope="module")
def primer():
    return probe.load(weights.read_model(PRIMER))


@pytest.fixture(scope="module")
def tokenizer(primer):
    return ByteExactTokenizer(read_tokenizer((PRIMER / "tokenizer.json").read_bytes()), primer.shape.vocabulary)


def tokens_of(tokenizer, text):
    return [i for piece in tokenizer.encode(text) for i in piece.ids]


def some_table(n, seed=0):
    """Bytes of tokens: words, line ends, separators; some stand for nothing."""
    chance = random.Random(seed)
    contents = [b"a", b"word", b"\n", b"\n  ", b",", b", ", b"\t", b"; |", b'"', b"\xc3\xa9", b"", None]
    return [chance.choice(contents) for _ in range(n)]


def learning(table, n_tokens_in_vocabulary, n_lanes, **options):
    return Options(learner=Learner(table, n_tokens_in_vocabulary, n_lanes), **options)


def repetitive(n_tokens, vocabulary, seed=0):
    """Tokens in which most things come again, with exceptions."""
    chance, tokens = random.Random(seed), []
    while len(tokens) < n_tokens:
        if tokens and chance.random() < 0.8:
            begin = chance.randrange(len(tokens))
            tokens += tokens[begin : begin + chance.randrange(1, 30)]
        else:
            tokens.append(chance.randrange(vocabulary))
    return tokens[:n_tokens]


def random_sums(chance, vocabulary, spread):
    """Cumulated counts of a model that is sure of a few tokens (or of none)."""
    parts = chance.standard_exponential(vocabulary) ** spread
    shares = (parts / parts.sum() * (TOTAL - vocabulary)).astype(np.int32) + 1
    shares[0] += TOTAL - shares.sum()
    return cumulated(shares)


# ---------------------------------------------------------------- the same bits twice


@pytest.mark.parametrize(("shape", "n_lanes"), [(GROUPED, 1), (GROUPED, 4), (PLAIN, 7)], ids=["1", "4", "7"])
def test_a_tiny_model_codes_as_specified(shape, n_lanes):
    model, tokens = random_model(shape), repetitive(120, shape.vocabulary, seed=n_lanes)
    table = some_table(shape.vocabulary - 9)  # the last tokens have no bytes
    payload = lanes.encode_lanes(model, tokens, n_lanes, learning(table, shape.vocabulary, n_lanes))
    twin = reference(shape)
    decoder = specified.LearningDecoder(
        exact.Decoder(payload), specified.Learner(table, shape.vocabulary, n_lanes), len(tokens)
    )
    assert exact.run_lanes(twin, [[twin.embed(twin.start)]] * n_lanes, len(tokens), decoder) == tokens
    decoder.check_end()


def test_primer_codes_as_specified(primer, tokenizer):
    tokens, twin = tokens_of(tokenizer, LOG[:700] + BOOK[:200]), read_model(PRIMER)[0]
    payload = lanes.encode_lanes(primer, tokens, 3, learning(tokenizer.table, 4096, 3))
    decoder = specified.LearningDecoder(
        exact.Decoder(payload), specified.Learner(tokenizer.table, 4096, 3), len(tokens)
    )
    assert exact.run_lanes(twin, [[twin.embed(twin.start)]] * 3, len(tokens), decoder) == tokens
    decoder.check_end()


class Twins:
    """The learner and the one of the reference, fed alike, whose every interval is compared."""

    def __init__(self, table, vocabulary, n_lanes, monkeypatch, generation=contexts.GENERATION):
        self.learner = Learner(table, vocabulary, n_lanes, generation)
        self.twin = specified.Learner(table, vocabulary, n_lanes)
        monkeypatch.setattr(specified, "MOST_KEYS", generation)

    def code(self, lane, sums, token):
        expected = self.expected(lane, sums, token)
        assert self.learner.encode(lane, sums, token) == expected
        return expected

    def expected(self, lane, sums, token):
        shares, found = np.diff(sums), None
        for first, n, v, learn in self.twin.intervals(lane, shares):
            learn(float(v == token))
            if v == token:
                found = first, n
                break
        if not found:
            borders = self.twin.rest()
            found = borders[token], borders[token + 1] - borders[token]
        self.twin.after(lane, token, shares)
        return found


@pytest.mark.parametrize(
    ("vocabulary", "n_lanes", "generation"), [(40, 3, 2**17), (300, 2, 500), (2, 2, 2**17), (1, 1, 9)]
)
@pytest.mark.parametrize("spread", [0, 1, 12])
def test_intervals_are_those_of_the_specification(vocabulary, n_lanes, generation, spread, monkeypatch):
    twins = Twins(some_table(vocabulary), vocabulary, n_lanes, monkeypatch, generation)
    chance = np.random.default_rng(spread)
    for i, token in enumerate(repetitive(700, vocabulary, seed=vocabulary)):
        twins.code(i % n_lanes, random_sums(chance, vocabulary, spread), token)


def test_counts_that_are_halved_are_those_of_the_specification(monkeypatch):
    twins = Twins(some_table(400), 400, 1, monkeypatch)
    sums = random_sums(np.random.default_rng(0), 400, 2)
    for token in [7] * 300 + [8, 7] * 20 + [9, 10] * 600 + [n for other in range(300) for n in (5, other)]:
        twins.code(0, sums, token)


def test_the_bias_is_that_of_the_specification():
    chance, vocabulary = np.random.default_rng(0), 50
    ours, twin = Learner([], vocabulary, 3), specified.Learner([], vocabulary, 3)
    for n_lanes in (3, 3, 3, 2, 1):
        for _ in range(8):
            logits = chance.standard_normal((n_lanes, vocabulary)).astype(np.float32) * 4
            expected = [twin.counts(row, np.float32(1)) for row in logits]
            sums = ours.sums(logits.copy())
            np.testing.assert_array_equal(np.diff(sums), expected)
            tokens = chance.integers(0, 4, n_lanes).tolist()
            for shares, token in zip(expected, tokens, strict=True):
                twin.x[token] += 1
                twin.h += shares
            twin.end_step()
            ours.end_step(list(sums), tokens)


def test_the_table_of_stretches_is_that_of_the_specification():
    np.testing.assert_array_equal(stretches(), exact.stretches())
    assert table_hash(stretches()) in SPECIFICATION


def test_no_stretch_is_near_a_tie():
    k = np.arange(4096)
    units = 65536 * np.log((2 * k + 1) / (8191 - 2 * k))
    nearest = np.abs(np.abs(units - np.floor(units)) - 0.5).min()
    power = int(re.search(r"nearer than 10\^-(\d+) units to a tie\. SHA", SPECIFICATION.replace("\n", " "))[1])
    assert 10.0**-power < nearest < 10.0 ** -(power - 1)


def test_the_classes_of_the_specification_are_those_of_the_cells():
    for count in range(256):
        assert FOR[count] * 8 == specified.cell(count, 0)
        assert AGAINST[count] == specified.cell(0, count)
    assert [mean for _, mean in specified.FOR] == list(FOR_MEANS)
    assert [mean for _, mean in specified.AGAINST] == list(AGAINST_MEANS)


# ---------------------------------------------------------------- texts come back


@pytest.mark.parametrize("n_lanes", [1, 3, 16])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("text", [LOG[:2000], BOOK[:1000]], ids=["log", "prose"])
def test_texts_come_back(primer, tokenizer, text, n_lanes, threads):
    tokens = tokens_of(tokenizer, text)
    payload = lanes.encode_lanes(primer, tokens, n_lanes, learning(tokenizer.table, 4096, n_lanes, threads=threads))
    found = lanes.decode_lanes(
        primer, payload, len(tokens), n_lanes, learning(tokenizer.table, 4096, n_lanes, threads=3 - threads)
    )
    assert found == tokens


@pytest.mark.parametrize("shape", [GROUPED, replace(PLAIN, vocabulary=3, start=0)], ids=["plain", "three tokens"])
@pytest.mark.parametrize(("n_tokens", "n_lanes"), [(0, 1), (1, 1), (7, 7), (90, 4)])
def test_few_tokens_come_back(shape, n_tokens, n_lanes):
    model, tokens = random_model(shape), random_tokens(shape, n_tokens).tolist()
    payload = lanes.encode_lanes(model, tokens, n_lanes, learning([], shape.vocabulary, n_lanes))
    assert lanes.decode_lanes(model, payload, n_tokens, n_lanes, learning([], shape.vocabulary, n_lanes)) == tokens


def test_how_much_the_encoder_computes_at_once_changes_nothing(primer, tokenizer, monkeypatch):
    tokens = tokens_of(tokenizer, LOG[:2000])
    payload = lanes.encode_lanes(primer, tokens, 4, learning(tokenizer.table, 4096, 4))
    monkeypatch.setattr(lanes, "TOKENS_AT_ONCE", 40)
    assert lanes.encode_lanes(primer, tokens, 4, learning(tokenizer.table, 4096, 4)) == payload


# ---------------------------------------------------------------- what it is for


def sizes(primer, tokenizer, text, n_lanes):
    tokens = tokens_of(tokenizer, text)
    options = learning(tokenizer.table, 4096, n_lanes)
    return len(lanes.encode_lanes(primer, tokens, n_lanes, options)), len(lanes.encode_lanes(primer, tokens, n_lanes))


def test_a_log_becomes_much_smaller(primer, tokenizer):
    learned, plain = sizes(primer, tokenizer, LOG, 8)
    assert learned < 0.7 * plain


@pytest.mark.parametrize("begin", [0, 3000, 7000])
@pytest.mark.parametrize("size", [60, 150, 400])
def test_a_message_is_hardly_ever_larger(primer, tokenizer, begin, size):
    learned, plain = sizes(primer, tokenizer, BOOK[begin : begin + size], 1)
    assert learned <= plain + 1


def test_a_long_repeat_costs_next_to_nothing():
    vocabulary, line = 4096, list(range(100, 140))
    learner, sums = Learner([], vocabulary, 1), random_sums(np.random.default_rng(0), vocabulary, 0)
    bits = [24 - np.log2(learner.encode(0, sums, token)[1]) for token in line * 100]
    assert np.mean(bits[-1000:]) < 0.002
    assert bits[0] > 11


# ---------------------------------------------------------------- what it may never do


@pytest.mark.parametrize("vocabulary", [1, 2, 3, 4, 90])
@pytest.mark.parametrize("spread", [0, 3, 40])
def test_the_intervals_of_all_tokens_fill_the_range(vocabulary, spread):
    """Whatever is fed: every target has a token, and the interval that is found is the one that is written."""
    chance, tokens = np.random.default_rng(vocabulary), repetitive(150, vocabulary, seed=spread)
    table = some_table(vocabulary)
    rows = [random_sums(chance, vocabulary, spread) for _ in tokens]

    def after(n):
        learner = Learner(table, vocabulary, 2)
        for i in range(n):
            learner.encode(i % 2, rows[i], tokens[i])
        return learner

    for n in (0, 1, 20, 149):
        seen, target = set(), 0
        while target < TOTAL:
            token, first, count = after(n).decode(n % 2, rows[n], target)
            assert first == target
            assert count >= 1
            assert after(n).encode(n % 2, rows[n], token) == (first, count)
            assert after(n).decode(n % 2, rows[n], first + count - 1) == (token, first, count)
            seen.add(token)
            target += count
        assert seen == set(range(vocabulary))
        assert target == TOTAL


def test_what_is_coded_later_changes_nothing_before(primer, tokenizer):
    """Tokens of the future, in any lane, are not known: the intervals before them are the same."""
    tokens = tokens_of(tokenizer, LOG)[:400]
    changed = [*tokens[:250], *tokens_of(tokenizer, BOOK)[:150]]  # in lanes of 100: lane 2 from step 50 on, and lane 3

    class Watched(Learner):
        def encode(self, lane, sums, token):
            interval = super().encode(lane, sums, token)
            seen.append((lane, token, interval))
            return interval

    runs = []
    for text in (tokens, changed):
        seen = []
        lanes.encode_lanes(primer, text, 4, Options(learner=Watched(tokenizer.table, 4096, 4)))
        runs.append(seen)
    first = next(i for i, (one, other) in enumerate(zip(*runs, strict=True)) if one[1] != other[1])
    assert (runs[0][first][0], first // 4) == (3, 0)
    assert runs[0][:first] == runs[1][:first]
    assert runs[0][first:] != runs[1][first:]


def test_damaged_payloads_give_tokens_or_an_error_of_the_file():
    model, vocabulary = random_model(GROUPED), GROUPED.vocabulary
    tokens, chance = repetitive(60, vocabulary), random.Random(0)
    payload = lanes.encode_lanes(model, tokens, 3, learning([], vocabulary, 3))
    for _ in range(25):
        damaged = bytearray(payload)
        damaged[chance.randrange(len(payload))] ^= 1 << chance.randrange(8)
        with suppress(DamagedFileError):
            assert lanes.decode_lanes(model, bytes(damaged), 60, 3, learning([], vocabulary, 3)) != tokens


def test_memory_is_bounded():
    vocabulary, generation = 300, 1000
    learner, chance = Learner([], vocabulary, 2, generation), random.Random(0)
    sums = random_sums(np.random.default_rng(0), vocabulary, 1)
    most = 0
    for i in range(3000):
        learner.encode(i % 2, sums, chance.randrange(vocabulary))
        most = max(most, len(learner._followers))
    assert generation < most <= 2 * (generation + N_CONTEXTS)


def test_a_line_without_end_takes_no_more_memory():
    place = Place(Kinds([b"a", b",,,", b"\n"]))
    for token in [0, 1] * 1000 + [2] + [0, 1] * 1000:
        place.move(token)
        place.keys()
    assert max(map(len, (place.line, place.starts, place.line_above, place.starts_above))) == 256
    assert place.field == 255


def test_what_is_not_seen_again_is_forgotten():
    followers, chance = Followers(generation=100), random.Random(0)

    def see(*keys, token):
        followers.count(keys, followers.of(keys), token)

    def others():
        return [chance.getrandbits(60) for _ in range(N_CONTEXTS - 1)]

    see(1, *others(), token=5)
    see(2, *others(), token=6)
    for _ in range(40):
        see(1, *others(), token=5)
    assert followers.of([1, 2]) == [followers.of([1])[0], None]
    assert followers.of([1])[0] >> contexts.COUNT_BITS == 5


def test_orders_below_the_longest_that_knew_the_token_are_left_alone():
    followers = Followers()
    keys = list(range(N_CONTEXTS))
    followers.count(keys, followers.of(keys), 5)
    longer = [0, 1, 2, 13, 14, *keys[5:]]
    followers.count(longer, followers.of(longer), 5)
    once, twice = 5 << contexts.COUNT_BITS | 1, 5 << contexts.COUNT_BITS | 2
    assert followers.of(range(3)) == [once, once, twice]
    assert followers.of([3, 13, *keys[5:]]) == [once, once, *[twice] * (N_CONTEXTS - 5)]


def test_followers_whose_half_is_nothing_leave_the_list():
    entry = {ALL: 9, 4: 1, 7: 5, 3: 3}
    contexts.halve(entry)
    assert list(entry.items()) == [(ALL, 3), (7, 2), (3, 1)]


def test_the_token_above_lies_in_the_same_field():
    word, comma, end = 0, 1, 2
    place = Place(Kinds([b"word", b",", b"\n", b"other"]))
    for token in [word, word, comma, 3, word, comma, word, end, word, comma]:
        place.move(token)
    assert place.line_above[place.above] == 3
    place.move(word)
    assert place.line_above[place.above] == word
    for token in [comma, comma, comma]:
        place.move(token)
    assert place.above >= len(place.line_above)
