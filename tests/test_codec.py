"""compress and decompress as a library: exact for any bytes, or an error."""

import hashlib
import io
import math
import random
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from models import PROSE, ROOT, TINY_MODEL, recital, restored, segments_of
from test_tokens import AWKWARD

import cramzip
from cramzip import CramConfig, codec
from cramzip.coding import corrected, restore
from cramzip.coding.original import Original
from cramzip.coding.parameters import choose_parameters
from cramzip.coding.restore import Runner
from cramzip.container import reading, stored, writing
from cramzip.container.description import describe
from cramzip.container.records import BITS, BuiltinModel, Kind, OutsideModel, Parameters
from cramzip.errors import CramError, DamagedFileError, UsageError, VerificationError, WrongModelError
from cramzip.lm.devices import DEVICES
from cramzip.lm.frozen import FrozenLM
from cramzip.lm.source import find

RNG = random.Random(0)
KINDS = AWKWARD | {
    "one byte": b"a",
    "one byte of no character": b"\xff",
    "a NUL": b"\0",
    "prose": PROSE,
    "code": b"def area(width, height):\n\tif width < 0:\n\t\traise ValueError(width)\n\treturn width * height\n",
    "json": b'{"name": "Ada", "born": 1815, "tags": ["a", "b"], "active": true, "score": -1.5e-3}\n',
    "csv": b"id,date,amount\r\n1,2024-01-02,19.99\r\n2,2024-01-03,5.00\r\n3,,\r\n",
    "log": b"2024-03-01T12:00:01Z INFO  [worker-3] GET /index.html 200 1532 0.012\n" * 2,
    "other languages": "Die Straße ist naß. 我能吞下玻璃而不伤身体。 Я могу есть. أنا قادر على أكل الزجاج.".encode(),
    "random words": " ".join("".join(RNG.choices("abcdefghij", k=RNG.randint(2, 9))) for _ in range(14)).encode(),
    "binary": RNG.randbytes(300),
    "all bytes": bytes(range(256)),
    "invalid utf-8 within text": PROSE[:40] + b"\xff\xc3(\xe2\x82" + PROSE[40:],
    "one letter": b"a" * 90,
    "very many of one letter": b"a" * 5000,
    "line ends": b"\n\r\n\r\t\n" * 8,
}
CONFIGS = {
    "no vectors": CramConfig(vectors=0, chunk_tokens=24, context=10),
    "default": CramConfig(vectors=1, effort=1, chunk_tokens=24, context=10),
    "exact": CramConfig(effort=1, vectors=2, exact=True),
}
FAST = CramConfig(vectors=0)
KIND_OF = {"no vectors": Kind.PREDICTED, "default": Kind.CORRECTED, "exact": Kind.RECITED}
every_kind = pytest.mark.parametrize("data", KINDS.values(), ids=KINDS.keys())


@pytest.fixture(scope="module")
def lm():
    return FrozenLM.load(TINY_MODEL)


@pytest.fixture(scope="module")
def text(lm):
    return recital(lm, 150)


@pytest.fixture(scope="module")
def blob(lm, text):
    """A file of one group."""
    blob = cramzip.compress(text, lm, FAST)
    assert [entry.kind for entry in cramzip.read(blob).entries] == [Kind.PREDICTED]
    return blob


@pytest.fixture
def small_groups(monkeypatch):
    monkeypatch.setattr(corrected, "GROUP_TOKENS", 40)
    monkeypatch.setitem(DEVICES, "cpu", replace(DEVICES["cpu"], segment_bytes=90))


# -- any bytes -------------------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize("mode", ["no vectors", "default"])
def test_every_kind_of_bytes_comes_back(lm, data, mode):
    assert cramzip.decompress(cramzip.compress(data, lm, CONFIGS[mode]), lm) == data


@pytest.mark.parametrize(
    "kind", ["empty", "one byte of no character", "special tokens as text", "prose", "other languages", "binary"]
)
def test_every_kind_of_bytes_comes_back_without_corrections(lm, kind):
    data = KINDS[kind][:12]
    assert cramzip.decompress(cramzip.compress(data, lm, CONFIGS["exact"]), lm) == data


@every_kind
@pytest.mark.parametrize("mode", ["no vectors", "default"])
def test_every_kind_of_bytes_comes_back_through_the_model(lm, never_stored, data, mode):
    blob = cramzip.compress(data, lm, CONFIGS[mode])
    assert cramzip.decompress(blob, lm) == data
    kinds = {entry.kind for entry in cramzip.read(blob).entries}
    if data and data[:40].isascii() and data[:20].decode().isprintable() and len(data) < 1000:
        assert KIND_OF[mode] in kinds


def size_if_stored(data, blob):
    header = replace(cramzip.read(blob).header, model=None, parameters=Parameters(), vectors=None)
    return writing.write(io.BytesIO(), header, [stored.stored_group(data)] if data else [])


@every_kind
@pytest.mark.parametrize("mode", ["no vectors", "default"])
def test_a_file_is_never_larger_than_if_it_were_stored(lm, data, mode):
    blob = cramzip.compress(data, lm, CONFIGS[mode], name="a")
    assert len(blob) <= size_if_stored(data, blob)


def test_a_file_of_text_that_the_model_knows_is_smaller_than_if_it_were_stored(text, blob):
    assert len(blob) < size_if_stored(text, blob)


@pytest.mark.parametrize(
    ("mode", "bits"), [*(("default", bits) for bits in BITS), *(("exact", bits) for bits in ("1", "4", "16"))]
)
def test_vectors_of_any_number_of_bits_come_back(lm, text, never_stored, mode, bits):
    data = text[:12]
    blob = cramzip.compress(data, lm, replace(CONFIGS[mode], bits=bits))
    file = cramzip.read(blob)
    assert KIND_OF[mode] in {entry.kind for entry in file.entries}
    assert file.header.vectors.coding.name_of_bits == bits
    assert cramzip.decompress(blob, lm) == data


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.binary(max_size=40) | st.text(max_size=20).map(str.encode))
def test_any_bytes_come_back(lm, never_stored, data):
    assert cramzip.decompress(cramzip.compress(data, lm, CONFIGS["no vectors"]), lm) == data


def test_ten_million_zeros_come_back(lm):
    data = bytes(10_000_000)
    blob = cramzip.compress(data, lm)
    assert len(blob) < 2000
    assert cramzip.decompress(blob, lm) == data


def test_text_after_other_data_is_predicted_and_the_rest_stored(lm, text):
    noise = random.Random(0).randbytes(2**16)
    blob = cramzip.compress(noise + text, lm, FAST)
    assert [entry.kind for entry in cramzip.read(blob).entries] == [Kind.RAW, Kind.PREDICTED]
    assert cramzip.decompress(blob, lm) == noise + text


def test_a_file_that_the_model_makes_no_smaller_is_stored_whole(lm, monkeypatch):
    monkeypatch.setitem(DEVICES, "cpu", replace(DEVICES["cpu"], segment_bytes=20))
    blob = cramzip.compress(PROSE * 3, lm, FAST)
    (entry,) = cramzip.read(blob).entries
    assert entry.kind is Kind.ZSTD
    assert cramzip.decompress(blob) == PROSE * 3


def test_exact_files_have_no_corrections(lm, text):
    entries = cramzip.read(cramzip.compress(text[:12], lm, CONFIGS["exact"])).entries
    assert Kind.RECITED in {entry.kind for entry in entries}
    assert all(entry.kind is Kind.RECITED or entry.kind.is_stored for entry in entries)


def test_a_machine_that_does_not_get_the_same_twice_makes_no_file(lm, text, never_stored, monkeypatch):
    step = lm.step

    def unreliable(inputs, cache=None):
        logits, cache = step(inputs, cache)
        return logits + torch.randn(logits.shape), cache

    monkeypatch.setattr(lm, "step", unreliable)
    with pytest.raises(VerificationError):
        cramzip.compress(text, lm, replace(CONFIGS["no vectors"], noise_exponent=14))


def verify(blob, original, lm):
    restore.verify(reading.read(blob), original, Runner(lm))


def test_what_is_verified_is_the_original(lm, blob, text):
    verify(blob, text, lm)
    for other in (text[:-1], text + b"a", b"X" + text[1:], text[:-1] + b"\0"):
        with pytest.raises(VerificationError):
            verify(blob, other, lm)


# -- the model -------------------------------------------------------------------------------------


def test_a_file_of_stored_groups_needs_no_model(lm):
    data = random.Random(0).randbytes(5000)
    assert cramzip.decompress(cramzip.compress(data, lm)) == data


def test_a_file_of_modelled_groups_needs_its_model(blob):
    with pytest.raises(WrongModelError, match="local:model"):
        cramzip.decompress(blob)


@pytest.mark.parametrize("mode", CONFIGS)
def test_a_model_of_too_few_positions_is_refused(lm, text, never_stored, monkeypatch, mode):
    data = text[:12] if mode == "exact" else text
    blob = cramzip.compress(data, lm, CONFIGS[mode])
    file = cramzip.read(blob)
    parameters = file.header.parameters
    needed = max(
        min(entry.n_tokens, parameters.chunk_tokens)
        + min(max(0, entry.n_tokens - parameters.chunk_tokens), parameters.context_tokens)
        + max(1, entry.n_vectors)
        for entry in file.entries
    )
    monkeypatch.setattr(lm, "context", needed)
    assert cramzip.decompress(blob, lm) == data
    monkeypatch.setattr(lm, "context", needed - 1)
    with pytest.raises(WrongModelError, match=f"{needed} positions"):
        cramzip.decompress(blob, lm)


def test_vectors_that_leave_no_room_for_tokens_are_a_usage_error(lm):
    with pytest.raises(UsageError, match="positions"):
        cramzip.compress(PROSE, lm, CramConfig(vectors=lm.context))


def test_vectors_of_another_width_are_refused(lm, text, never_stored, monkeypatch):
    blob = cramzip.compress(text[:60], lm, CONFIGS["default"])
    monkeypatch.setattr(lm, "width", 17)
    with pytest.raises(WrongModelError, match="Vector_Width"):
        cramzip.decompress(blob, lm)


# -- the header ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "strip", "kept"), [(2**20 - 1, False, 8), (2**20, False, 32), (4095, True, 4), (2**20, True, 4)]
)
def test_the_hash_of_small_files_is_kept_in_part(lm, size, strip, kept):
    data = random.Random(0).randbytes(size)
    header = cramzip.read(cramzip.compress(data, lm, strip=strip)).header
    assert header.original_hash == hashlib.sha256(data).digest()[:kept]


def test_the_name_is_kept_unless_stripped(lm):
    assert cramzip.read(cramzip.compress(PROSE, lm, FAST, name="dickens.txt")).header.name == "dickens.txt"
    assert cramzip.read(cramzip.compress(PROSE, lm, FAST)).header.name is None
    assert cramzip.read(cramzip.compress(PROSE, lm, FAST, name="dickens.txt", strip=True)).header.name is None


def test_the_gain_of_vectors_is_told_unless_stripped(lm, never_stored):
    config = replace(CONFIGS["default"], effort=4, vectors=4)
    (segment,) = segments_of(PROSE, lm, config)
    told, stripped = (cramzip.read(cramzip.compress(PROSE, lm, config, strip=strip)).header for strip in (False, True))
    assert told.vectors.gain == max(0, round(segment.gain)) > 0
    brief = {"original_hash": told.original_hash[:4], "model": told.model.brief}
    assert stripped == replace(told, vectors=replace(told.vectors, gain=None), **brief)


def test_a_header_names_the_model_and_how_groups_are_decoded(lm, blob):
    header = cramzip.read(blob).header
    assert header.model == OutsideModel("local:model", "", lm.fingerprint, lm.tokenizer_hash)
    assert header.parameters == choose_parameters(lm, FAST)
    assert header.vectors is None


def test_a_file_without_modelled_groups_names_no_model(lm):
    header = cramzip.read(cramzip.compress(PROSE, lm, FAST)).header
    assert (header.model, header.parameters, header.vectors) == (None, Parameters(), None)


def test_vectors_of_a_file_are_tensors_that_can_be_decoded(lm, text, small_groups, never_stored):
    file = cramzip.read(cramzip.compress(text, lm, replace(CONFIGS["default"], vectors=2)))
    assert len(file.entries) > 2
    for entry, mem in zip(file.entries, file.vectors, strict=True):
        assert mem.shape == (-(-entry.n_tokens // 24), 2, lm.width)
        assert torch.isfinite(mem).all()


def test_groups_without_vectors_have_none(blob):
    assert cramzip.read(blob).vectors == (None,)


def test_sizes_in_a_description_add_up(lm, text, small_groups, never_stored):
    blob = cramzip.compress(text + b"\0" * 50, lm, CONFIGS["default"])
    about = describe(reading.read(blob))
    parts = (about.header_bytes, about.vector_bytes, about.correction_bytes, about.stored_bytes)
    assert min(parts) > 0
    assert sum(parts) == about.file_size == len(blob)
    assert about.ratio == (len(text) + 50) / len(blob)


# -- how near to the best --------------------------------------------------------------------------


def entropy_bound(blob, lm):
    file = reading.read(blob)
    return codec.entropy_bound(file.header, Runner(lm).decoded(file), lm)


def test_the_entropy_bound_is_the_cost_of_the_chunks_under_the_model(lm, text, never_stored):
    blob = cramzip.compress(text, lm, CONFIGS["no vectors"])
    ids, bits = lm.tokenizer.encode(text)[0].ids, 0.0
    for first in range(0, len(ids), 24):
        bits += lm.score([ids[first : first + 24]], [ids[max(0, first - 10) : first]])[0].sum() / math.log(2)
    assert entropy_bound(blob, lm) == pytest.approx(bits, rel=1e-5)


def test_the_entropy_bound_of_stored_groups_is_their_size(lm):
    data = random.Random(0).randbytes(5000)
    assert entropy_bound(cramzip.compress(data, lm), lm) == 8 * 5000


def test_corrections_come_near_to_the_entropy_bound():
    lm, config = FrozenLM(find()), FAST
    data = b"".join(path.read_bytes() for path in sorted((ROOT / "examples" / "texts").iterdir()))
    parameters = choose_parameters(lm, config)
    blob = codec.unverified(Original(data, hashlib.sha256(data).digest()), lm, config)
    ids, bits = lm.tokenizer.encode(data)[0].ids, 0.0
    for first in range(0, len(ids), parameters.chunk_tokens):
        chunk = ids[first : first + parameters.chunk_tokens]
        bits += lm.score([chunk], [ids[max(0, first - parameters.context_tokens) : first]])[0].sum() / math.log(2)
    assert isinstance(cramzip.read(blob).header.model, BuiltinModel)
    assert bits / 8 > 0.85 * len(blob)


# -- parts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", CONFIGS)
def test_any_part_can_be_decoded_alone(lm, text, small_groups, never_stored, mode):
    data = text[:40] if mode == "exact" else text
    blob = cramzip.compress(data, lm, CONFIGS[mode])
    assert len(cramzip.read(blob).entries) > 2
    size = len(data)
    offsets = reading.read(blob).offsets
    parts = [
        (0, 5),
        (17, 35),
        (35, None),
        (size, None),
        (30, 30),
        (35, 30),
        (0, size),
        (0, 10**9),
        (size - 1, size + 5),
    ]
    parts += [(offsets[1], offsets[2]), (offsets[1] - 1, offsets[2] + 1), (offsets[1], offsets[1] + 1)]
    for start, stop in parts:
        assert cramzip.decompress(blob, lm, start=start, stop=stop) == data[start:stop]


def test_only_the_groups_that_a_part_touches_are_decoded(lm, text, small_groups, never_stored, monkeypatch):
    blob = cramzip.compress(text, lm, CONFIGS["no vectors"])
    offsets = reading.read(blob).offsets
    decode_groups, decoded = restore.decode_groups, []
    monkeypatch.setattr(
        restore,
        "decode_groups",
        lambda file, groups, *how: decoded.append(len(groups)) or decode_groups(file, groups, *how),
    )
    cramzip.decompress(blob, lm, start=offsets[1], stop=offsets[3])
    cramzip.decompress(blob, lm, start=offsets[1] - 1, stop=offsets[1])
    cramzip.decompress(blob, lm, start=offsets[2] - 1, stop=offsets[2] + 1)
    assert decoded == [2, 1, 2]


def test_a_part_of_a_file_of_one_group_can_be_decoded(lm, blob, text):
    assert cramzip.decompress(blob, lm, start=30, stop=77) == text[30:77]


@pytest.mark.parametrize("start", [-1, 10**6])
def test_a_part_that_begins_outside_the_file_is_a_usage_error(lm, blob, start):
    with pytest.raises(UsageError, match="start"):
        cramzip.decompress(blob, lm, start=start, stop=start + 1)


def test_groups_that_are_not_decoded_together_give_the_same(lm, text, small_groups, never_stored, monkeypatch):
    blob = cramzip.compress(text, lm, CONFIGS["default"])
    monkeypatch.setattr(restore, "WINDOW_BYTES", 50)
    assert b"".join(restored(blob, lm, batch_size=2)) == text


def test_progress_is_told_while_tokens_are_decoded_and_comes_to_the_whole(lm, text, small_groups, never_stored):
    blob = cramzip.compress(text, lm, CONFIGS["default"])
    told = []
    for _ in restored(blob, lm, progress=told.append):
        assert sum(told) > len(text) // 2  # all groups are decoded before the first is given out
    assert sum(told) == len(text)
    assert min(told) >= 0
    assert len([n for n in told if n]) > len(cramzip.read(blob).entries)


def test_progress_never_exceeds_the_whole_where_tokens_are_decoded_again(lm, text, never_stored, monkeypatch):
    blob = cramzip.compress(text, lm, CONFIGS["default"])
    decode_groups, told = restore.decode_groups, []

    def twice(*how):
        decode_groups(*how)
        return decode_groups(*how)

    monkeypatch.setattr(restore, "decode_groups", twice)
    assert b"".join(restored(blob, lm, progress=told.append)) == text
    assert sum(told) == len(text)


# -- damage ----------------------------------------------------------------------------------------


def written(file, groups, **changes):
    """The bytes of a file with other groups, all its checksums being right."""
    sink = io.BytesIO()
    writing.write(sink, replace(file.header, **changes), groups)
    return sink.getvalue()


@pytest.fixture(scope="module")
def files_to_damage():
    """Those that were made already."""
    return {}


@pytest.fixture(params=[*CONFIGS, "one group", "one stored group"])
def file_to_damage(request, lm, text, monkeypatch, never_stored, files_to_damage):
    """A file of one group or of several, and its original."""
    mode = request.param
    if mode == "one stored group":
        monkeypatch.undo()
        return cramzip.compress(PROSE, lm, FAST), PROSE
    monkeypatch.setattr(corrected, "GROUP_TOKENS", 10**6 if mode == "one group" else 40)
    data = text[:30] if mode == "exact" else text
    if mode not in files_to_damage:
        files_to_damage[mode] = cramzip.compress(data, lm, CONFIGS.get(mode, CONFIGS["default"]))
    blob = files_to_damage[mode]
    assert (len(cramzip.read(blob).entries) == 1) is (mode == "one group")
    return blob, data


def test_every_truncation_is_an_error(lm, file_to_damage):
    blob, _ = file_to_damage
    for end in range(len(blob)):
        with pytest.raises(DamagedFileError):
            cramzip.decompress(blob[:end], lm)


def test_every_flipped_bit_is_an_error(lm, file_to_damage):
    blob, _ = file_to_damage
    for position in range(len(blob)):
        damaged = bytearray(blob)
        damaged[position] ^= 1 << random.Random(position).randrange(8)
        with pytest.raises(DamagedFileError):
            cramzip.decompress(bytes(damaged), lm)


def test_randomly_damaged_files_give_errors_and_never_wrong_bytes(lm, file_to_damage):
    blob, _ = file_to_damage
    rng = random.Random(0)
    for _ in range(200):
        damaged = bytearray(blob)
        for _ in range(rng.choice([1, 1, 2, 8])):
            match rng.randrange(4):
                case 0:
                    damaged[rng.randrange(len(damaged))] = rng.randrange(256)
                case 1:
                    del damaged[rng.randrange(len(damaged))]
                case 2:
                    damaged.insert(rng.randrange(len(damaged)), rng.randrange(256))
                case 3:
                    start = rng.randrange(len(damaged))
                    damaged[start : start + 8] = rng.randbytes(8)
        if damaged == blob:
            continue
        with pytest.raises(CramError):
            cramzip.decompress(bytes(damaged), lm)


def changed_payload(rng, group):
    data = bytearray(group.payload)
    match rng.randrange(4):
        case 0:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        case 1:
            data = data[: rng.randrange(len(data))] or data[:1]
        case 2:
            data += rng.randbytes(3)
        case 3:
            data[:] = rng.randbytes(len(data))
    return writing.modelled_group(group.entry.kind, b"", group.entry.n_tokens, group.entry.n_vectors, bytes(data))


def changed_entry(rng, group):
    field = rng.choice(["size", "n_tokens", "n_vectors", "kind"])
    kinds = [kind for kind in Kind if not kind.is_stored]
    value = rng.choice(kinds) if field == "kind" else max(0, getattr(group.entry, field) + rng.choice([-2, -1, 1, 2]))
    return replace(group, entry=replace(group.entry, **{field: value}))


def test_damage_under_right_checksums_gives_errors_and_never_wrong_bytes(lm, file_to_damage):
    """As if someone had made the file so: every check but those of the decoded content is passed."""
    blob, data = file_to_damage
    file = reading.read(blob)
    groups = list(file)
    rng = random.Random(0)
    n_wrong = 0
    for trial in range(14):
        index = rng.randrange(len(groups))
        if groups[index].entry.kind.is_stored:
            continue
        other = (changed_payload if trial % 2 else changed_entry)(rng, groups[index])
        if trial % 2:
            entry = replace(groups[index].entry, payload_size=len(other.payload), payload_crc=other.entry.payload_crc)
            other = replace(other, entry=entry)
        damaged = written(file, [*groups[:index], other, *groups[index + 1 :]])
        try:
            assert cramzip.decompress(damaged, lm) == data
        except CramError:
            n_wrong += 1
    assert n_wrong > 7 or groups[0].entry.kind.is_stored


def test_groups_in_another_order_are_an_error(lm, text, small_groups, never_stored):
    file = reading.read(cramzip.compress(text, lm, CONFIGS["no vectors"]))
    first, second, *others = file
    with pytest.raises(DamagedFileError, match="Original_Hash"):
        cramzip.decompress(written(file, [second, first, *others]), lm)


@pytest.mark.parametrize(
    "changes", [{"noise_exponent": 15}, {"noise_exponent": 5}, {"chunk_tokens": 23}, {"context_tokens": 9}]
)
def test_other_parameters_are_an_error(lm, text, never_stored, changes):
    file = reading.read(cramzip.compress(text, lm, CONFIGS["no vectors"]))
    damaged = written(file, list(file), parameters=replace(file.header.parameters, **changes))
    with pytest.raises(DamagedFileError, match="content"):
        cramzip.decompress(damaged, lm)


def test_the_hash_of_another_original_is_an_error(lm, blob):
    file = reading.read(blob)
    with pytest.raises(DamagedFileError, match="Original_Hash"):
        cramzip.decompress(written(file, list(file), original_hash=bytes(8)), lm)
