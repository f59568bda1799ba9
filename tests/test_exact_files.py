"""Files of the built-in model: what is written and read in exact arithmetic, by the library and the command line."""

import io
import os
import random
import re
import subprocess
import sys

import numpy as np
import pytest
from models import ROOT

import cramzip
from cramzip import CramConfig, codec
from cramzip.coding.encode import Writer
from cramzip.coding.laned import LANES
from cramzip.coding.quantize import dequantize
from cramzip.coding.restore import Runner, verify
from cramzip.container import reading, stored, writing
from cramzip.container.description import describe
from cramzip.container.records import STANDARD_LANES, Coding, Group, Kind, Lanes
from cramzip.container.vectors import QuantizedMem
from cramzip.errors import CramError, DamagedFileError, ModelError, UsageError, VerificationError, WrongModelError
from cramzip.exact import lanes
from cramzip.exact.vectors import dequantised
from cramzip.lm.frozen import FrozenLM

TEXT = (ROOT / "examples" / "texts" / "lighthouse.txt").read_bytes()
PROSE = TEXT[:700]
BOOK = (ROOT / "cramzip" / "laboratory" / "books.txt").read_bytes()[:6000]
N_DAMAGED = int(os.environ.get("CRAMZIP_TEST_DAMAGED", "40"))
PRIMER = ROOT / "cramzip" / "models" / "primer"

# Runs the command line where torch and transformers are not installed.
WITHOUT_TORCH = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers", "safetensors", "huggingface_hub", "accelerate"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
"""
RUN = f"{WITHOUT_TORCH}\nfrom cramzip.__main__ import main\nsys.exit(main())"


@pytest.fixture(scope="module")
def lm():
    return cramzip.load()


@pytest.fixture(scope="module")
def blob(lm):
    return cramzip.compress(PROSE, lm, CramConfig(chunk_tokens=40))


def described(blob):
    return describe(reading.read(blob))


def without_torch(folder, *arguments, code=0):
    command = [sys.executable, "-c", RUN, *map(str, arguments)]
    finished = subprocess.run(command, cwd=folder, capture_output=True, timeout=300)
    assert finished.returncode == code, finished.stderr.decode()
    return finished


def test_the_command_line_needs_no_torch_for_texts_without_vectors(folder):
    (folder / "book.txt").write_bytes(PROSE)
    without_torch(folder, "c", "book.txt")
    without_torch(folder, "t", "-j", "2", "book.cram")
    without_torch(folder, "d", "-o", "again.txt", "book.cram")
    assert (folder / "again.txt").read_bytes() == PROSE
    assert b"exact, the same bits on every machine" in without_torch(folder, "l", "-v", "book.cram").stdout
    shown = without_torch(folder, "bench", "--settings", "smallest", "book.txt").stdout.decode()
    assert re.search(r"cramzip --smallest +[0-9]+ ", shown)


@pytest.mark.parametrize(
    "arguments",
    [
        ("c", "-f", "--vectors", "1"),
        ("c", "-f", "--exact"),
        ("c", "-f", "--ranks", "-m", ROOT / "formats" / "model"),
        ("capacity",),
    ],
    ids=["vectors", "exact", "ranks", "laboratory"],
)
def test_what_needs_torch_says_so_in_one_line_where_it_is_missing(folder, arguments):
    (folder / "book.txt").write_bytes(PROSE)
    told = without_torch(folder, *arguments, "book.txt", code=ModelError.exit_code).stderr.decode()
    assert re.fullmatch(
        r"cramzip: (book.txt: )?\S+( laboratory)? needs torch, which is not installed: pip install 'cramzip.torch.'\n",
        told,
    )


def test_the_library_needs_no_torch():
    code = f"{WITHOUT_TORCH}\nimport cramzip\nlm = cramzip.load()\nblob = cramzip.compress(b'It was a dark night.', lm)"
    code += "\nassert cramzip.decompress(blob, lm) == b'It was a dark night.'\nprint(len(blob))"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert int(finished.stdout) < 40


@pytest.mark.parametrize("effort", LANES)
def test_every_level_gives_the_text_back_in_its_own_lanes(lm, effort):
    blob = cramzip.compress(PROSE, lm, CramConfig(effort=effort))
    file = reading.read(blob)
    n_tokens, own = file.entries[0].n_tokens, LANES[effort]
    same = STANDARD_LANES.count(n_tokens) == own.count(n_tokens)
    assert file.header.lanes == (STANDARD_LANES if same else own)  # the header leaves out the standard ones
    assert cramzip.decompress(blob, lm) == PROSE


def test_a_short_text_has_the_same_header_at_every_level(lm):
    """In one lane, or in as many as the standard parameters give it."""
    blobs = {cramzip.compress(PROSE[:200], lm, CramConfig(effort=effort)) for effort in (1, 5, 9)}
    assert len(blobs) == 1


def test_the_usual_lanes_are_those_that_a_header_leaves_out():
    assert LANES[CramConfig().effort] == STANDARD_LANES


def test_the_more_effort_the_fewer_lanes(lm):
    counts = [described(cramzip.compress(BOOK, lm, CramConfig(effort=effort))).n_chunks for effort in (1, 5, 9)]
    assert counts[0] > counts[1] > counts[2] == 1


def test_a_message_takes_two_bytes_more_than_its_entropy(lm):
    for message in (PROSE[:40], PROSE[:90], PROSE[:300]):
        (group,) = reading.read(cramzip.compress(message, lm, strip=True))
        (piece,) = lm.tokenizer.encode(message)
        bits = lanes.costs(lm.model, piece.ids, 1).sum()
        assert len(group.payload) <= bits / 8 + 2


def test_lanes_reach_the_entropy_bound(lm):
    file = reading.read(cramzip.compress(TEXT, lm, CramConfig(chunk_tokens=32)))
    windows = [([group], [[i for piece in lm.tokenizer.encode(TEXT) for i in piece.ids]]) for group in file]
    bound = codec.entropy_bound(file.header, windows, lm)
    assert described(file.blob).n_chunks > 8
    assert 0.995 * 8 * len(next(iter(file)).payload) <= bound


@pytest.mark.parametrize("config", [{"vectors": 1, "max_steps": 2}, {"vectors": 2, "bits": "16", "max_steps": 1}])
def test_vectors_of_lanes_are_found_in_torch_and_decoded_without(lm, config):
    blob = cramzip.compress(PROSE, lm, CramConfig(chunk_tokens=100, **config))
    found = described(blob)
    if found.n_vectors:
        assert found.kinds == {Kind.PROMPTED: 1}
        assert found.n_vectors == found.n_chunks * config["vectors"] > 1
    code = f"{WITHOUT_TORCH}\nimport cramzip\nsys.stdout.buffer.write(cramzip.decompress({blob!r}, cramzip.load()))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == PROSE


def test_vectors_recite_a_text_in_exact_arithmetic(lm):
    text = PROSE[:60]
    blob = cramzip.compress(text, lm, CramConfig(exact=True, vectors=1, max_steps=40))
    assert set(described(blob).kinds) == {Kind.RECITED}
    assert cramzip.decompress(blob, lm) == text


@pytest.mark.parametrize("coding", [coding for coding in Coding if coding.levels])
@pytest.mark.parametrize("width", [64, 320])
def test_exact_vectors_are_those_of_floats_but_for_rounding(coding, width):
    rng = np.random.default_rng(0)
    codes = rng.integers(0, coding.levels, (3, width)).astype(np.uint8)
    scales = np.array([100, 128, 133], np.uint8)
    expected = dequantize(QuantizedMem(coding, codes, scales)).numpy()
    found = dequantised(codes, scales, coding.levels)
    assert np.abs(found - expected).max(axis=1) == pytest.approx(0, abs=1e-4 * float(np.abs(expected).max()))


def test_context_is_refused(lm):
    with pytest.raises(UsageError, match="reads in lanes"):
        cramzip.compress(PROSE, lm, CramConfig(context=8))


def test_more_vectors_than_positions_are_refused(lm):
    with pytest.raises(UsageError, match="do not fit into the 1024 positions"):
        cramzip.compress(PROSE, lm, CramConfig(vectors=600))


def test_a_model_in_floats_cannot_open_it(blob):
    with pytest.raises(WrongModelError, match="exact arithmetic"):
        cramzip.decompress(blob, FrozenLM.load(PRIMER))


def test_the_same_model_in_floats_makes_files_that_either_opens(lm):
    floats = lm.frozen
    blob = cramzip.compress(PROSE, floats, CramConfig(vectors=0))
    assert set(described(blob).kinds) == {Kind.PREDICTED}
    assert cramzip.decompress(blob, floats) == cramzip.decompress(blob, lm) == PROSE


def test_groups_are_decoded_alone(lm, monkeypatch):
    monkeypatch.setattr("cramzip.coding.laned.SEGMENT_BYTES", 300)
    blob = cramzip.compress(TEXT[:1200], lm)
    file = reading.read(blob)
    assert len(file.entries) > 2
    asked = []
    decode = lanes.decode_lanes
    monkeypatch.setattr(lanes, "decode_lanes", lambda *rest: asked.append(1) or decode(*rest))
    begin = file.offsets[1]
    assert cramzip.decompress(blob, lm, start=begin + 5, stop=begin + 9) == TEXT[begin + 5 : begin + 9]
    assert len(asked) == 1


@pytest.mark.parametrize("text", [PROSE[:300], PROSE[:300].upper(), PROSE[:300].replace(b" ", b"\r\n")])
def test_a_check_asks_the_model_for_many_tokens_at_once(lm, text, monkeypatch):
    """What is compressed is known; and if what is there is something else, that is found out token by token."""
    file = reading.read(cramzip.compress(text, lm))
    steps, forward = [], lm.model.forward
    monkeypatch.setattr(lm.model, "forward", lambda *how: steps.append(1) or forward(*how), raising=False)
    verify(file, text, Runner(lm))
    assert len(steps) == 3
    with pytest.raises(VerificationError, match="other bytes from byte 0 on"):
        verify(file, bytes([text[0] ^ 1]) + text[1:], Runner(lm))
    assert len(steps) > 40
    with pytest.raises(VerificationError, match="decodes to"):
        verify(file, text + b"more", Runner(lm))


def test_the_first_group_comes_before_the_others_are_decoded(lm, monkeypatch):
    from models import restored

    monkeypatch.setattr("cramzip.coding.laned.SEGMENT_BYTES", 300)
    blob = cramzip.compress(TEXT[:1200], lm)
    asked = []
    decode = lanes.decode_lanes
    monkeypatch.setattr(lanes, "decode_lanes", lambda *rest: asked.append(1) or decode(*rest))
    assert TEXT.startswith(next(restored(blob, lm)))
    assert len(asked) == 1


def test_processes_share_its_groups(lm, monkeypatch):
    from cramzip.workers.processes import LocalWorkers

    monkeypatch.setattr("cramzip.coding.laned.SEGMENT_BYTES", 300)
    alone = cramzip.compress(TEXT[:1000], lm)
    with LocalWorkers(2) as workers:
        monkeypatch.setattr("cramzip.coding.laned.SEGMENT_BYTES", 300)
        assert cramzip.compress(TEXT[:1000], lm, workers=workers) == alone
        assert cramzip.decompress(alone, lm, workers=workers) == TEXT[:1000]


def test_a_group_with_more_tokens_than_lanes_have_positions_becomes_several(lm, monkeypatch):
    monkeypatch.setattr("cramzip.coding.laned.MAX_POSITIONS", 60)
    monkeypatch.setitem(LANES, 5, Lanes(16, 2))
    blob = cramzip.compress(PROSE, lm)
    assert described(blob).n_groups > 1
    assert cramzip.decompress(blob, lm) == PROSE


def test_what_is_stored_depends_on_no_version_of_zstd(lm, monkeypatch):
    """A zstd that packs twice as well, or not at all, changes no decision."""
    repeated = b"".join(b"%06d the same line again and again, but for its number\n" % n for n in range(40))
    texts = [PROSE, repeated, random.Random(1).randbytes(90).hex().encode(), b"short"]
    kinds = [described(cramzip.compress(text, lm)).kinds.keys() & {Kind.CODED} for text in texts]
    for packed in (lambda content: content + b"!", lambda content: content[: len(content) // 20]):
        monkeypatch.setattr(stored, "_packed", packed)
        for text, kind in zip(texts, kinds, strict=True):
            segments = Writer(lm, CramConfig()).segments(text)
            found = {group.entry.kind for segment in segments for group in segment.groups}
            assert found & {Kind.CODED} == kind


def test_the_expected_size_is_near_that_of_zstd():
    for path in (ROOT / "examples" / "texts").iterdir():
        content = path.read_bytes()
        size = len(stored.stored_group(content).payload)
        assert 0.7 * size < stored.expected_entry(content).payload_size < 1.4 * size


def test_a_damaged_file_is_refused_and_never_gives_other_bytes(lm, blob):
    """Any damage is found, whatever it is; CRAMZIP_TEST_DAMAGED says how many times that is tried."""
    for seed in range(N_DAMAGED):
        draw = random.Random(seed)
        damaged = bytearray(blob)
        at = draw.randrange(len(damaged))
        match draw.randrange(4):
            case 0:
                damaged[at] ^= 1 << draw.randrange(8)
            case 1:
                del damaged[at:]
            case 2:
                del damaged[at : at + draw.randint(1, 9)]
            case 3:
                damaged[at:at] = draw.randbytes(draw.randint(1, 9))
        if damaged != blob:
            with pytest.raises(CramError):
                cramzip.decompress(bytes(damaged), lm)


def test_damage_behind_right_checksums_is_found_by_the_decoder(lm):
    """As a hostile writer would make it: the payload is changed, and every checksum but that of the original agrees."""
    file = reading.read(cramzip.compress(PROSE[:120], lm, CramConfig(chunk_tokens=12)))
    (group,) = file
    for seed in range(N_DAMAGED):
        draw = random.Random(seed)
        payload = bytearray(group.payload)
        for _ in range(draw.randint(1, 3)):
            payload[draw.randrange(len(payload))] = draw.randrange(256)
        if draw.randrange(4) == 0:
            payload[draw.randrange(len(payload)) :] = draw.randbytes(draw.randrange(9))
        if payload == group.payload:
            continue
        sink = io.BytesIO()
        writing.write(sink, file.header, [Group(group.entry, bytes(payload))])
        with pytest.raises(DamagedFileError):
            cramzip.decompress(sink.getvalue(), lm)
