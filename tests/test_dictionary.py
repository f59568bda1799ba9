"""A dictionary: what lanes begin with, how it is kept, and files that need it."""

import json
import os
import random
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from models import ROOT

import cramzip
from cramzip import CramConfig, decompress
from cramzip.coding.laned import Laned
from cramzip.container import reading
from cramzip.container.layout import DICTIONARY_TOKENS, MAX_POSITIONS
from cramzip.container.records import Entry, Header, Kind, longest_lane
from cramzip.errors import DamagedFileError, InputOutputError, UsageError, WrongModelError
from cramzip.exact import dictionary
from cramzip.exact.contexts import Kinds, Place
from cramzip.exact.dictionary import CONTEXT, MOST_BYTES
from cramzip.exact.lanes import decode_lanes, encode_lanes
from cramzip.exact.learner import Learner
from cramzip.exact.run import Options
from cramzip.lm import dictionary as kept
from cramzip.lm.frozen import FrozenLM
from cramzip.lm.models import load, with_dictionary
from cramzip.workers.processes import LocalWorkers

FORMATS = ROOT / "formats"
sys.path.insert(0, str(FORMATS))

import dictionary as specified  # noqa: E402
import reader  # noqa: E402

TINY, FLOATS = FORMATS / "exact_model", FORMATS / "model"
PROSE = (ROOT / "examples" / "texts" / "lighthouse.txt").read_bytes()


def record(i):
    chance = random.Random(i)
    name, place = chance.choice(["Ada", "Bo", "Cleo"]), chance.choice(["Turin", "Oslo", "Lima"])
    seen = {"id": i, "name": name, "place": place, "score": chance.randrange(1000)}
    return (json.dumps(seen) + "\n").encode()


SAMPLE = b"".join(map(record, range(60)))
SMALL = [record(i) for i in range(100, 106)]


@pytest.fixture(scope="module")
def lm():
    return load(str(TINY))


@pytest.fixture(scope="module")
def primer():
    return load()


@pytest.fixture(scope="module")
def blobs(primer):
    return [cramzip.compress(small, primer, strip=True, dictionary=SAMPLE) for small in SMALL]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder for dictionaries, with a lower bound for what is kept."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(kept, "WORTH_KEEPING", 1)
    return tmp_path / "cache" / "cramzip" / "dictionaries"


def new_learner(lm, n_lanes=1):
    return Learner(lm.tokenizer.table, lm.vocabulary_size, n_lanes)


def tokens_of(lm, content):
    return dictionary.cut(content, lm.tokenizer.table)


# ---------------------------------------------------------------- tokens


@pytest.mark.parametrize(
    ("table", "expected"), [([b"a", b"b", b"ab", b"ba", b"bab"], [2, 2]), ([b"a", b"b", b"ba", b"ab", b"bab"], [0, 4])]
)
def test_the_examples_of_the_specification_are_cut_as_it_says(table, expected):
    assert dictionary.cut(b"abab", table) == specified.cut(b"abab", table, len(table)) == expected


@pytest.mark.parametrize("seed", range(60))
def test_any_vocabulary_cuts_as_the_specification_says(seed):
    """Also one in which a longer token has a lower number, and some stand for the same bytes."""
    chance = random.Random(seed)
    longer = [bytes(chance.choices(b"abc \n", k=chance.randint(2, 6))) for _ in range(40)]
    table = [b"a", b"b", b"c", b" ", b"\n", None, *longer]
    chance.shuffle(table)
    content = bytes(chance.choices(b"abc \n", k=chance.randint(1, 80)))
    assert dictionary.cut(content, table) == specified.cut(content, table, len(table))


@pytest.mark.parametrize(
    "content", [SAMPLE, PROSE[:4000], b"a:\n    b: 1\n\n\n  - c\n", "In 1866 – après l’été 🫖\r\n\tx  = 1".encode()]
)
def test_a_sample_of_ordinary_text_is_cut_as_the_tokenizer_cuts_it(primer, content):
    """Else its tokens would be others than those of the texts that it is a sample of."""
    assert tokens_of(primer, content) == [token for piece in primer.tokenizer.encode(content) for token in piece.ids]


@pytest.mark.parametrize("byte", [b"c", b"\0"])
def test_a_byte_without_a_token_is_refused(byte):
    with pytest.raises(ValueError, match=f"byte {byte.hex()}"):
        dictionary.cut(b"ab" + byte, [b"a", b"b", b"ab"])


def test_a_long_run_is_cut_in_no_time(lm):
    assert lm.tokenizer.decode(tokens_of(lm, b"a" * 10**5)) == b"a" * 10**5


# ---------------------------------------------------------------- what lanes begin with


@pytest.mark.parametrize("n_lanes", [1, 3])
@pytest.mark.parametrize("size", [1, 200, len(SAMPLE)], ids=lambda size: f"{size} bytes")
def test_lanes_after_a_dictionary_come_back(lm, size, n_lanes):
    after = with_dictionary(lm, SAMPLE[-size:]).dictionary
    tokens = tokens_of(lm, b"".join(SMALL))
    options = [Options(context=after.context, learner=after.learner(n_lanes)) for _ in range(2)]
    coded = encode_lanes(lm.model, tokens, n_lanes, options[0])
    assert decode_lanes(lm.model, coded, len(tokens), n_lanes, options[1]) == tokens


def test_a_lane_goes_on_as_if_the_dictionary_were_its_beginning(lm):
    """The model gives the same logits after start token and dictionary as in one sequence with them."""
    sample, tokens = tokens_of(lm, SAMPLE)[-40:], tokens_of(lm, SMALL[0])[:30]
    context = dictionary.read(lm.model, dictionary.count(sample, new_learner(lm)), new_learner(lm))
    cache = context.begun(lm.model, 3, 1 + len(tokens))
    x = np.broadcast_to(lm.model.embed([[context.last, *tokens]]), (3, 1 + len(tokens), lm.width))
    found = lm.model.logits(x, cache)
    whole = lm.model.embed([[lm.start, *sample, *tokens]])
    expected = lm.model.logits(whole, lm.model.new_cache(1, whole.shape[1]))[0, -len(found[0]) :]
    assert all(row.tobytes() == expected.tobytes() for row in found)


def test_the_longest_lane_is_a_position_below_the_limit(lm):
    context = with_dictionary(lm, SAMPLE).dictionary.context
    assert context.cache.position == CONTEXT
    with pytest.raises(ValueError, match="65537 positions"):
        encode_lanes(lm.model, [1] * (2**16 - CONTEXT + 1), 1, Options(context=context))


def test_groups_learn_nothing_from_each_other(lm):
    after = with_dictionary(lm, SAMPLE).dictionary
    tokens = tokens_of(lm, b"".join(SMALL))
    coded = [
        encode_lanes(lm.model, tokens, 2, Options(context=after.context, learner=after.learner(2))) for _ in range(3)
    ]
    assert len(set(coded)) == 1


def test_what_was_settled_is_never_changed(lm):
    known, place = with_dictionary(lm, SAMPLE).dictionary.context.learner.seen
    before = {key: entry if isinstance(entry, int) else list(entry.items()) for key, entry in known.items()}
    learner = new_learner(lm)
    learner.start_from(known, place)
    learner.read(tokens_of(lm, SAMPLE) * 3)
    assert before == {key: entry if isinstance(entry, int) else list(entry.items()) for key, entry in known.items()}
    assert any(learner.seen[0][key] != entry for key, entry in known.items())


def test_the_same_bits_come_out_in_torch(lm):
    from cramzip.lm import exact_torch

    twin = exact_torch.load(lm.model.weights)
    tokens, contexts = tokens_of(lm, SAMPLE), []
    for model in (lm.model, twin):
        context = dictionary.read(model, dictionary.count(tokens, new_learner(lm)), new_learner(lm))
        options = Options(context=context, learner=context.learner.forked(2))
        contexts.append(encode_lanes(model, tokens[:90], 2, options))
    assert contexts[0] == contexts[1]


# ---------------------------------------------------------------- what is kept


def test_what_was_packed_comes_back(lm):
    learner = new_learner(lm)
    learner.read(tokens_of(lm, SAMPLE + PROSE[:3000]))
    known, place = learner.seen
    packed = dictionary.pack(dictionary.Seen(known, place, [3, 1, 2]))
    again, other, last = dictionary.unpack(packed, Place(Kinds(lm.tokenizer.table)))
    assert [(key, list(e.items()) if isinstance(e, dict) else e) for key, e in again.items()] == [
        (key, list(e.items()) if isinstance(e, dict) else e) for key, e in known.items()
    ]
    assert (other.state, other.keys(), last) == (place.state, place.keys(), [3, 1, 2])


def test_a_dictionary_that_was_kept_gives_the_same_file(lm, cache, monkeypatch):
    blob = cramzip.compress(SMALL[0], load(str(TINY)), dictionary=SAMPLE)
    (file,) = cache.iterdir()
    assert file.stat().st_size < 100 * len(SAMPLE)
    monkeypatch.setattr(dictionary, "count", None)
    assert cramzip.compress(SMALL[0], load(str(TINY)), dictionary=SAMPLE) == blob


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1],
        lambda content: content[:40] + bytes([content[40] ^ 1]) + content[41:],
        lambda content: b"",
        lambda content: content + b"-",
    ],
    ids=["cut", "flipped", "empty", "longer"],
)
def test_a_damaged_file_of_the_cache_is_made_anew(cache, damage):
    blob = cramzip.compress(SMALL[0], load(str(TINY)), dictionary=SAMPLE)
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    assert cramzip.compress(SMALL[0], load(str(TINY)), dictionary=SAMPLE) == blob
    assert file.read_bytes() == whole


def test_files_of_the_cache_are_named_by_all_that_they_depend_on(cache, monkeypatch):
    def make(content, folder=TINY):
        cramzip.compress(SMALL[0], load(str(folder)), dictionary=content)

    make(SAMPLE)
    make(SAMPLE)
    make(SAMPLE + b"-")
    make(SAMPLE, ROOT / "cramzip" / "models" / "primer")
    monkeypatch.setattr(kept, "_program", lambda: b"another")
    make(SAMPLE)
    assert len(list(cache.iterdir())) == 4


def test_the_cache_tells_apart_models_that_differ_in_their_tokens_alone(cache, tmp_path, never_stored):
    other = tmp_path / "other"
    shutil.copytree(TINY, other)
    file = other / "tokenizer.json"
    content = json.loads(file.read_bytes())
    vocabulary = content["model"]["vocab"]
    vocabulary["a"], vocabulary["e"] = vocabulary["e"], vocabulary["a"]
    file.write_text(json.dumps(content))
    assert load(str(other)).fingerprint == load(str(TINY)).fingerprint
    expected = cramzip.compress(SMALL[0], load(str(other)), dictionary=SAMPLE)
    for path in cache.iterdir():
        path.unlink()
    assert cramzip.compress(SMALL[0], load(str(TINY)), dictionary=SAMPLE) != expected
    assert cramzip.compress(SMALL[0], load(str(other)), dictionary=SAMPLE) == expected


def test_the_cache_keeps_what_was_used_last(cache, monkeypatch):
    monkeypatch.setattr(kept, "MOST_KEPT", 2)
    names = []
    for age, content in enumerate([SAMPLE, SAMPLE + b"1", SAMPLE + b"2"]):
        cramzip.compress(SMALL[0], load(str(TINY)), dictionary=content)
        (new,) = {path.name for path in cache.iterdir()} - set(names)
        names.append(new)
        os.utime(cache / new, (age, age))
    assert {path.name for path in cache.iterdir()} == set(names[1:])


def test_where_nothing_can_be_kept_a_dictionary_works_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "WORTH_KEEPING", 1)
    monkeypatch.setenv("XDG_CACHE_HOME", os.devnull)
    blob = cramzip.compress(SMALL[0], load(str(TINY)), dictionary=SAMPLE)
    assert cramzip.decompress(blob, load(str(TINY)), dictionary=SAMPLE) == SMALL[0]


# ---------------------------------------------------------------- files


def test_small_files_are_much_smaller_after_a_dictionary(primer, blobs):
    plain = [cramzip.compress(small, primer, strip=True) for small in SMALL]
    assert sum(map(len, blobs)) < 0.6 * sum(map(len, plain))


def test_all_that_is_not_coded_is_seventeen_bytes(blobs):
    file = reading.read(blobs[0])
    (entry,) = file.entries
    assert len(blobs[0]) - entry.payload_size == 17
    assert file.header.dictionary is not None


def test_files_come_back_from_library_and_reference(lm):
    content = SMALL[0] + SMALL[1]
    blob = cramzip.compress(content, lm, dictionary=SAMPLE[-400:])
    assert reading.read(blob).header.dictionary
    assert cramzip.decompress(blob, lm, dictionary=SAMPLE[-400:]) == content
    assert reader.read(blob, TINY, SAMPLE[-400:]) == content


def test_the_reference_reads_what_was_made_with_the_builtin_model(primer):
    blob = cramzip.compress(SMALL[0], primer, strip=True, dictionary=SAMPLE[:300])
    assert reader.read(blob, ROOT / "cramzip" / "models" / "primer", SAMPLE[:300]) == SMALL[0]


def test_a_file_of_many_groups_and_lanes_is_read_in_parts(lm, tmp_path, never_stored, monkeypatch):
    monkeypatch.setattr("cramzip.coding.laned.SEGMENT_BYTES", 2000)
    content = b"".join(record(i) for i in range(200, 280))
    blob = cramzip.compress(content, lm, CramConfig(chunk_tokens=50), dictionary=SAMPLE)
    assert len(reading.read(blob).entries) > 2
    assert cramzip.decompress(blob, lm, dictionary=SAMPLE) == content
    assert cramzip.decompress(blob, lm, start=2500, stop=2600, dictionary=SAMPLE) == content[2500:2600]
    (tmp_path / "a.cram").write_bytes(blob)
    with cramzip.open(tmp_path / "a.cram", lm=lm, dictionary=SAMPLE) as file:
        file.seek(3000)
        assert file.read(50) == content[3000:3050]


def test_workers_go_on_from_the_dictionary(lm, never_stored, monkeypatch):
    monkeypatch.setattr("cramzip.coding.laned.SEGMENT_BYTES", 2000)
    content = b"".join(record(i) for i in range(200, 260))
    alone = cramzip.compress(content, lm, dictionary=SAMPLE)
    assert reading.read(alone).header.dictionary
    with LocalWorkers(2) as workers:
        assert cramzip.compress(content, lm, dictionary=SAMPLE, workers=workers) == alone
        assert cramzip.decompress(alone, lm, dictionary=SAMPLE, workers=workers) == content


def test_open_writes_with_a_dictionary(primer, tmp_path):
    with cramzip.open(tmp_path / "a.cram", "wb", primer, dictionary=SAMPLE) as file:
        file.write(SMALL[0])
    assert cramzip.decompress((tmp_path / "a.cram").read_bytes(), primer, dictionary=SAMPLE) == SMALL[0]
    with cramzip.open(tmp_path / "a.cram", lm=primer) as file, pytest.raises(WrongModelError, match="-D"):
        file.read()


def test_a_file_that_is_part_of_the_dictionary_takes_hardly_more_than_its_header(primer):
    small = record(59)
    blob = cramzip.compress(small, primer, strip=True, dictionary=SAMPLE + SAMPLE)
    assert len(blob) < 17 + 12
    assert cramzip.decompress(blob, primer, dictionary=SAMPLE + SAMPLE) == small


@pytest.mark.parametrize("content", [b"", b"\0\xff" * 40, os.urandom(300)], ids=["nothing", "bytes", "noise"])
def test_what_is_stored_needs_no_dictionary(primer, content):
    blob = cramzip.compress(content, primer, dictionary=SAMPLE)
    if not reading.read(blob).header.dictionary:
        assert cramzip.decompress(blob) == content
    assert cramzip.decompress(blob, primer, dictionary=SAMPLE) == content


def test_a_dictionary_changes_nothing_in_the_decoding_of_files_without_one(primer):
    blob = cramzip.compress(SMALL[0], primer)
    assert cramzip.decompress(blob, primer, dictionary=SAMPLE) == SMALL[0]


def test_another_dictionary_or_none_is_refused(primer, blobs):
    with pytest.raises(WrongModelError, match=r"needs the dictionary .* say with -D"):
        cramzip.decompress(blobs[0], primer)
    with pytest.raises(WrongModelError, match=r"the one that is given has [0-9a-f]{8} "):
        cramzip.decompress(blobs[0], primer, dictionary=SAMPLE[1:])


def test_another_model_is_refused(lm, blobs):
    with pytest.raises(WrongModelError, match="Dictionary_Hash"):
        cramzip.decompress(blobs[0], lm, dictionary=SAMPLE)


def test_every_changed_byte_is_found(primer, blobs):
    """There is no Check: what comes out shows it, or what is asked for is another dictionary."""
    for place in range(len(blobs[0])):
        changed = bytearray(blobs[0])
        changed[place] ^= 1 << place % 8
        with pytest.raises((DamagedFileError, WrongModelError)):
            cramzip.decompress(bytes(changed), primer, dictionary=SAMPLE)


@pytest.mark.parametrize("content", [b"", bytes(MOST_BYTES + 1)], ids=["empty", "too long"])
def test_content_that_can_be_no_dictionary_is_refused(lm, content):
    with pytest.raises(UsageError, match="expected 1 to 1,048,576 bytes"):
        cramzip.compress(SMALL[0], lm, dictionary=content)


def test_a_model_in_floats_takes_no_dictionary():
    with pytest.raises(UsageError, match="exact arithmetic"):
        cramzip.compress(SMALL[0], FrozenLM.load(str(FLOATS)), dictionary=SAMPLE)


@pytest.mark.parametrize("effort", range(1, 10))
def test_the_longest_group_leaves_the_dictionary_its_positions(lm, effort):
    method = Laned(with_dictionary(lm, SAMPLE), CramConfig(effort=effort))
    entry = Entry(Kind.CODED, 2**20, 1, 0, 0, method.group_tokens)
    header = Header(2**20, bytes(8), lanes=method.lanes, dictionary=bytes(8))
    assert longest_lane(entry, header) == MAX_POSITIONS


@pytest.mark.parametrize("config", [CramConfig(vectors=1), CramConfig(exact=True)], ids=["vectors", "exact"])
def test_vectors_take_no_dictionary(lm, config):
    with pytest.raises(UsageError, match="without vectors"):
        cramzip.compress(SMALL[0], lm, config, dictionary=SAMPLE)


# ---------------------------------------------------------------- the command line


@pytest.fixture
def files(folder):
    (folder / "sample").write_bytes(SAMPLE)
    names = [f"{i}.json" for i in range(3)]
    for name, small in zip(names, SMALL, strict=False):
        (folder / name).write_bytes(small)
    return names


def test_many_files_go_there_and_back(cramzip, folder, files):
    assert cramzip("c", "-D", "sample", "--rm", *files).exit_code == 0
    packed = [f"{Path(name).stem}.cram" for name in files]
    assert all((folder / name).stat().st_size < 60 for name in packed)
    assert cramzip("t", "-D", "sample", *packed).exit_code == 0
    assert cramzip("d", "-D", "sample", *packed).exit_code == 0
    assert [(folder / name).read_bytes() for name in files] == SMALL[:3]


@pytest.mark.parametrize("name", ["sample", "./sample", "linked"])
def test_the_dictionary_is_never_removed_nor_overwritten(cramzip, folder, files, name):
    Path("linked").hardlink_to("sample")
    result = cramzip("c", "--rm", "-D", "sample", files[0], name)
    assert (result.exit_code, Path(files[0]).exists(), Path("sample").read_bytes()) == (2, False, SAMPLE)
    assert f"{name}: it is the dictionary, without which nothing can be restored" in result.stderr
    assert cramzip("c", "-f", "-D", "sample", files[1], "-o", name).exit_code == 1
    assert Path(name).read_bytes() == SAMPLE


def test_the_dictionary_is_read_by_the_model_once_for_all_files(cramzip, files, monkeypatch):
    read, calls = dictionary.read, []
    monkeypatch.setattr(dictionary, "read", lambda *arguments: calls.append(1) or read(*arguments))
    assert cramzip("c", "-D", "sample", *files).exit_code == 0
    assert cramzip("d", "-f", "-D", "sample", *(f"{Path(name).stem}.cram" for name in files)).exit_code == 0
    assert len(calls) == 2


def test_a_missing_or_another_dictionary_is_an_error_of_code_4(cramzip, folder, files):
    assert cramzip("c", "-D", "sample", files[0]).exit_code == 0
    (folder / "other").write_bytes(SAMPLE[1:])
    for arguments in [("d", "-f"), ("t",), ("d", "-f", "-D", "other"), ("t", "-D", "other")]:
        found = cramzip(*arguments, f"{Path(files[0]).stem}.cram")
        assert found.exit_code == 4
        assert "the file needs the dictionary" in found.stderr


def test_another_model_is_the_wrong_one(cramzip, folder, files):
    assert cramzip("c", "-D", "sample", files[0], "-o", "a.cram").exit_code == 0
    result = cramzip("t", "-D", "sample", "-m", FLOATS, "a.cram")
    assert (result.exit_code, "a.cram" in result.stderr) == (4, True)
    for other in (load(str(FLOATS)), FrozenLM.load(str(FLOATS))):
        with pytest.raises(WrongModelError):
            decompress(Path("a.cram").read_bytes(), other, dictionary=SAMPLE)


def test_list_tells_of_a_dictionary(cramzip, folder, files):
    assert cramzip("c", "-D", "sample", files[0]).exit_code == 0
    assert cramzip("c", files[1], "-o", "plain.cram").exit_code == 0
    expected = reading.read((folder / f"{Path(files[0]).stem}.cram").read_bytes()).header.dictionary.hex()
    both = cramzip("l", f"{Path(files[0]).stem}.cram", "plain.cram").stdout
    assert expected in both
    assert "Dictionary" in both
    assert "Dictionary" not in cramzip("l", "plain.cram").stdout
    assert f"{expected}, needed to decompress" in cramzip("l", "-v", f"{Path(files[0]).stem}.cram").stdout
    records = json.loads(cramzip("l", "--json", f"{Path(files[0]).stem}.cram", "plain.cram").stdout)["files"]
    assert [one["dictionary"] for one in records] == [expected, None]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["-D", "missing"], 1, "the dictionary missing: No such file"),
        (["-D", "."], 1, "the dictionary .: is a directory"),
        (["-D", "empty"], 2, "expected 1 to 1,048,576 bytes, found 0"),
        (["-D", ""], 2, "must not be empty"),
        (["-D", "sample", "--vectors", "1"], 2, "without vectors"),
        (["-D", "sample", "-m", str(FLOATS), "--ranks"], 2, "ranks have none"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_can_be_no_dictionary_is_said(cramzip, folder, files, arguments, code, message):
    (folder / "empty").touch()
    found = cramzip("c", *arguments, files[0])
    assert found.exit_code == code
    assert message in found.stderr


def test_errors_name_the_dictionary(tmp_path):
    from cramzip.app.models import samples_of

    with pytest.raises(InputOutputError, match=r"the dictionary .*nothing"):
        samples_of(str(tmp_path / "nothing"), None)


def test_learning_is_the_same_whether_a_dictionary_was_kept_or_not(lm):
    """Also where there are more keys than a generation holds."""
    learners = [Learner(lm.tokenizer.table, lm.vocabulary_size, 1, generation=1000) for _ in range(3)]
    seen = dictionary.count(tokens_of(lm, PROSE[:20000]), learners[0])
    again = dictionary.unpack(dictionary.pack(seen), Place(Kinds(lm.tokenizer.table)))
    one, other = (dictionary.read(lm.model, *pair) for pair in zip((seen, again), learners[1:], strict=True))
    assert one.learner.seen[0] == other.learner.seen[0]
    assert one.learner.seen[1].state == other.learner.seen[1].state
    assert one.last == other.last


def test_the_format_leaves_room_for_what_the_model_reads():
    assert CONTEXT == DICTIONARY_TOKENS
