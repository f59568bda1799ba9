"""The format, twice: the test vectors, read by the reference reader and by the library.

Neither knows the other, so a file that both read alike is read as the specification says.
"""

import hashlib
import io
import json
import math
import re
import shutil
import subprocess
import sys
import unicodedata
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from models import PROSE, ROOT, recital

import cramzip
from cramzip import CramConfig, codec
from cramzip.coding import quantize
from cramzip.coding.corrections import TokenDecoder, TokenEncoder
from cramzip.coding.ranks import Step, rank
from cramzip.container import reading, writing
from cramzip.container.endings import ENDINGS, IN_FIRST_BYTES
from cramzip.container.records import BITS, Coding, Header, Kind
from cramzip.container.stored import stored_groups
from cramzip.container.vectors import pack
from cramzip.errors import DamagedFileError, WrongModelError
from cramzip.lm.models import as_torch, load

FORMATS = ROOT / "formats"
MODEL, EXACT_MODEL = FORMATS / "model", FORMATS / "exact_model"
VECTORS = FORMATS / "vectors"
PRIMER = ROOT / "cramzip" / "models" / "primer"
sys.path.insert(0, str(FORMATS))

import corrections  # noqa: E402
import exact_vectors  # noqa: E402
import llama  # noqa: E402
import make_exact_model  # noqa: E402
import make_model  # noqa: E402
import make_vectors  # noqa: E402
import reader  # noqa: E402
import writer  # noqa: E402

INDEX = json.loads((VECTORS / "index.json").read_text("utf-8"))["vectors"]
SPECIFICATION = (FORMATS / "cram.md").read_text("utf-8")


def vectors(expectation, but_stage=None):
    chosen = [v for v in INDEX if v["expect"] == expectation and v.get("stage", "") != but_stage]
    return pytest.mark.parametrize("vector", chosen, ids=lambda vector: vector["file"].removesuffix(".cram"))


def blob_of(vector):
    return (VECTORS / vector["file"]).read_bytes()


def assert_is_original(data, vector):
    assert len(data) == vector["size"]
    assert hashlib.sha256(data).hexdigest() == vector["sha256"]
    assert data.hex() == vector.get("original", data.hex())


def folder_of(vector):
    return FORMATS / vector["model"]


def sample_of(vector):
    return bytes.fromhex(vector["dictionary"]) if "dictionary" in vector else None


def codebook_of(vector):
    return bytes.fromhex(vector["codebook"]) if "codebook" in vector else None


def by_reference(vector):
    return reader.read(blob_of(vector), folder_of(vector), sample_of(vector) or codebook_of(vector))


def by_library(vector):
    samples = {"dictionary": sample_of(vector), "codebook": codebook_of(vector)}
    return cramzip.decompress(blob_of(vector), loaded(folder_of(vector)), **samples)


@cache
def loaded(folder):
    return load(str(folder))


@pytest.fixture(scope="module")
def lm():
    return as_torch(loaded(MODEL))


@pytest.fixture(scope="module")
def primer():
    return cramzip.load()


# ---------------------------------------------------------------- the reference reader


@vectors("ok")
def test_reference_reader_decodes(vector):
    assert_is_original(by_reference(vector), vector)


@vectors("damaged")
def test_reference_reader_calls_damaged_at_the_right_stage(vector):
    with pytest.raises(reader.Damaged) as refusal:
        by_reference(vector)
    assert refusal.value.stage == vector["stage"]


@vectors("wrong model")
def test_reference_reader_wants_another_model_for(vector):
    with pytest.raises(reader.WrongModel) as refusal:
        by_reference(vector)
    assert refusal.value.stage == vector["stage"] == "model"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda folder: shutil.copy(MODEL / "model.safetensors", folder), "Model_Fingerprint"),
        (lambda folder: (folder / "exact.safetensors").rename(folder / "model.safetensors"), "Model_Fingerprint"),
        (lambda folder: (folder / "exact.safetensors").unlink(), None),
    ],
    ids=["other weights beside", "under another name", "no weights"],
)
def test_reference_reader_wants_the_weights_of_an_exact_file_in_their_place(change, reason, tmp_path):
    folder = shutil.copytree(EXACT_MODEL, tmp_path / "model")
    change(folder)
    with pytest.raises(reader.WrongModel if reason else FileNotFoundError, match=reason):
        reader.read((VECTORS / "ok-coded.cram").read_bytes(), folder)


def test_reference_reader_wants_another_model_where_exact_arithmetic_cannot_run_it(tmp_path):
    """The very model that the file names, with heads of 32."""
    folder = shutil.copytree(EXACT_MODEL, tmp_path / "model")
    config = llama.read_config(folder) | {"head_dim": 32}
    (folder / "config.json").write_text(json.dumps(config))
    fingerprint = llama.fingerprint(config, llama.read_tensors(folder))
    group = writer.Group(writer.CODED, b"-", b"-", 1)
    model = writer.Model(fingerprint, llama.tokenizer_hash(llama.token_table(folder)))
    file = writer.File((group,), model=model, parameters=writer.Lanes())
    with pytest.raises(reader.WrongModel, match="heads in config"):
        reader.read(bytes(file), folder)


@vectors("damaged", but_stage="content")
def test_reference_reader_needs_no_model_to_find_damage_before_the_stage_model(vector):
    with pytest.raises(reader.Damaged) as refusal:
        reader.read(blob_of(vector))
    assert refusal.value.stage == vector["stage"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([VECTORS / "ok-every-kind.cram", MODEL], 0),
        ([VECTORS / "ok-raw-one-byte.cram"], 0),
        ([VECTORS / "no-such-file.cram"], 1),
        ([], 2),
        ([VECTORS / "magic-genomics.cram"], 3),
        ([VECTORS / "model-other-fingerprint.cram", MODEL], 4),
        ([VECTORS / "ok-predicted.cram"], 4),
        ([VECTORS / "ok-coded.cram", EXACT_MODEL], 0),
        ([VECTORS / "ok-coded.cram", MODEL], 4),
        ([VECTORS / "content-coded-cut.cram", EXACT_MODEL], 3),
        ([VECTORS / "ok-dictionary-short.cram", EXACT_MODEL], 4),
        ([VECTORS / "ok-dictionary-short.cram", EXACT_MODEL, VECTORS / "index.json"], 4),
    ],
    ids=lambda value: value if isinstance(value, int) else "-".join(Path(part).stem for part in value),
)
def test_reference_reader_exits_with_the_code_of_the_problem(arguments, code):
    run = subprocess.run([sys.executable, FORMATS / "reader.py", *arguments], capture_output=True)
    assert run.returncode == code
    assert bool(run.stdout) == (code == 0)
    assert bool(run.stderr) == (code != 0)


# ---------------------------------------------------------------- the examples of the specification


def examples():
    """The files that the specification spells out."""
    lines = re.findall(r"^    (9D 43 5A .*)$", SPECIFICATION, re.MULTILINE)
    return [bytes.fromhex(line.replace(" ", "")) for line in lines]


def test_both_readers_read_the_examples_of_files():
    *of_one_group, after_dictionary, smallest = examples()
    assert reader.read(smallest) == cramzip.decompress(smallest) == b""
    for blob, kind in zip(of_one_group, (reader.PREDICTED, reader.CODED), strict=True):
        with pytest.raises(reader.WrongModel, match="built-in model 1a2b3c4d"):
            reader.read(blob)
        file = cramzip.read(blob)
        assert (file.header.name, file.header.original_size) == ("a.txt", 11)
        assert file.header.original_hash == hashlib.sha256(b"the cat sat").digest()[:8]
        assert (file.entries[0].kind, file.entries[0].n_tokens) == (kind, 4)
    with pytest.raises(reader.WrongModel, match="the built-in model"):
        reader.read(after_dictionary)
    with pytest.raises(WrongModelError, match="5e6f7081"):
        cramzip.decompress(after_dictionary)
    assert len(after_dictionary) == 17 + 2
    file = cramzip.read(after_dictionary)
    assert (file.header.dictionary.hex(), file.header.original_size, file.header.name) == ("5e6f7081", 11, None)
    assert (file.entries[0].kind, file.entries[0].n_tokens) == (Kind.CODED, 4)


def test_reference_reader_reads_the_examples_of_vectors():
    numbers = reader.parse_vectors(bytes.fromhex("783008"), 2, 7)
    assert numbers.tolist() == [[-0.5, 0, 0.5, 0, -0.5, 0.5, 0.5]]
    expected = [-0.060609, 0.315912, 0.153602, -0.990766, 0.264305, -0.205209, -0.171312]
    np.testing.assert_allclose(reader.transform(numbers)[0], expected, atol=1e-6)
    eight_levels = reader.parse_vectors(bytes.fromhex("80F1510D"), 4, 7)
    np.testing.assert_allclose((eight_levels[0] + 1) * 7 / 2, [1, 6, 7, 0, 5, 2, 3])


def test_reference_reader_reads_the_example_of_corrections():
    decoder = corrections.Corrections(bytes.fromhex("E4A8D9"), 4, 14)
    decoder.begin_chunk(3)
    logits = np.float32([(2, 1, 0, -1), (2, 1, 0, -1), (0, 2, 2, -1)])
    assert [decoder.token(row) for row in logits] == [0, 2, 1]
    decoder.coder.check_end()


def test_reference_coder_reads_and_writes_the_example_of_the_range_coder():
    decoder, encoder = corrections.RangeDecoder(bytes.fromhex("3442")), make_vectors.RangeEncoder()
    bit, same_bit = corrections.Bit(2**21, 8), corrections.Bit(2**21, 8)
    for yes, probability in [(True, 2317904), (True, 2496608), (False, 2279511), (True, 2432694)]:
        encoder.decision(same_bit, yes)
        assert decoder.decision(bit) == yes
        assert bit.probability == same_bit.probability == probability
    assert (encoder.low, encoder.range) == (706394475, 261064620)
    assert (decoder.number(3), decoder.unbounded()) == (5, 6)
    decoder.check_end()
    encoder.number(5, 3)
    encoder.unbounded(6)
    assert (encoder.low, encoder.range) == (52 * 2**32 + 1096477648, 261064624)
    assert encoder.shortest() == bytes.fromhex("3442")


# ---------------------------------------------------------------- the vectors themselves


def test_the_index_lists_exactly_the_files_that_there_are():
    names = [vector["file"] for vector in INDEX]
    assert sorted(names) == sorted(path.name for path in VECTORS.glob("*.cram"))
    assert {path.suffix for path in VECTORS.iterdir()} == {".cram", ".json"}


def test_no_two_vectors_are_the_same():
    given = [(vector.get("dictionary"), vector.get("codebook")) for vector in INDEX]
    assert len({(blob_of(vector), *beside) for vector, beside in zip(INDEX, given, strict=True)}) == len(INDEX)


def test_every_stage_has_vectors():
    stages = ["magic", "version", "header", "table", "length", "payload", "vectors", "model", "content"]
    assert list(dict.fromkeys(vector["stage"] for vector in INDEX if vector["expect"] != "ok")) == stages


def test_generators_make_the_committed_files_again(tmp_path):
    make_model.write_model(tmp_path / "model")
    make_exact_model.write_model(tmp_path / "exact_model")
    make_vectors.write_vectors(tmp_path / "vectors")
    for folder in ("model", "exact_model", "vectors"):
        made = {path.name: path.read_bytes() for path in (tmp_path / folder).iterdir()}
        assert made == {path.name: path.read_bytes() for path in (FORMATS / folder).iterdir()}


# ---------------------------------------------------------------- the library, on the same files


@vectors("ok")
def test_library_decodes(vector):
    assert_is_original(by_library(vector), vector)


@vectors("damaged")
def test_library_calls_damaged_at_the_right_stage(vector):
    with pytest.raises(DamagedFileError) as refusal:
        by_library(vector)
    assert refusal.value.stage == vector["stage"]


@vectors("wrong model")
def test_library_wants_another_model_for(vector):
    with pytest.raises(WrongModelError):
        by_library(vector)


# ---------------------------------------------------------------- files of the library, for the reference reader

AWKWARD = {
    "nothing": b"",
    "one NUL": b"\0",
    "every byte": bytes(range(256)),
    "line endings": b"a\r\nb\rc\n\n\r\n",
    "no UTF-8 amid English": b"The \xff\xfe of \xc3( the \xed\xa0\x80 water, and \x80 on.",
    "byte order mark": "\ufeffthe end".encode(),
    "special token spelt out": b"the <|end|> of the <|end|>",
    "character of SentencePiece": "\u2581the\u2581end".encode(),
    "composed and decomposed": "é e\u0301 ﬁ fi Å Å".encode(),
    "same letter": b"a" * 300,
    "tokens that tie": bytes(make_model.TWINS) * 20,
    "long token": b"\xff\0" + make_model.CITIES_TEXT.encode() + b"\r\n\xfe",
}
SETTINGS = {
    "predicted": CramConfig(vectors=0),
    "predicted in chunks": CramConfig(vectors=0, chunk_tokens=16, context=9),
    "predicted in chunks without context": CramConfig(vectors=0, chunk_tokens=10, context=0),
    "corrected": CramConfig(effort=1),
    "corrected in chunks": CramConfig(effort=1, chunk_tokens=20, context=30, bits="2"),
    "corrected with three vectors": CramConfig(effort=1, vectors=3, bits="3"),
    "strong noise": CramConfig(vectors=0, noise_exponent=3),
    "weak noise": CramConfig(vectors=0, noise_exponent=13),
} | {f"{bits} bits": CramConfig(effort=1, bits=bits) for bits in BITS}


def kinds(blob):
    return {entry.kind for entry in cramzip.read(blob).entries}


@pytest.fixture(scope="module")
def text(lm):
    return recital(lm, 60, temperature=2.0)


@pytest.mark.parametrize("data", AWKWARD.values(), ids=AWKWARD.keys())
def test_reference_reader_decodes_what_the_library_writes(data, lm, never_stored):
    blob = cramzip.compress(data, lm, CramConfig(vectors=0), name="awkward.bin")
    assert reader.read(blob, MODEL) == data
    assert cramzip.decompress(blob, lm) == data


@pytest.mark.parametrize("config", SETTINGS.values(), ids=SETTINGS.keys())
def test_reference_reader_decodes_all_settings_of_the_library(config, text, lm, never_stored):
    blob = cramzip.compress(text, lm, config)
    assert reader.read(blob, MODEL) == text
    assert kinds(blob) == {Kind.CORRECTED if config.n_vectors else Kind.PREDICTED}


def test_reference_reader_decodes_recitals_of_the_library(lm, never_stored):
    text = recital(lm, 12)
    blob = cramzip.compress(text, lm, CramConfig(effort=1, exact=True))
    assert reader.read(blob, MODEL) == text
    assert Kind.RECITED in kinds(blob)


def test_reference_reader_decodes_several_groups_of_the_library(text, lm, never_stored, monkeypatch):
    monkeypatch.setattr("cramzip.coding.corrected.GROUP_TOKENS", 20)
    blob = cramzip.compress(text, lm, CramConfig(vectors=0))
    assert len(cramzip.read(blob).entries) > 2
    assert reader.read(blob, MODEL) == text


@pytest.mark.parametrize("n_vectors", [0, 1])
def test_reference_reader_decodes_with_the_built_in_model(n_vectors, primer, never_stored):
    blob = cramzip.compress(PROSE, primer, CramConfig(vectors=n_vectors, effort=1))
    assert kinds(blob) <= ({Kind.PROMPTED} if n_vectors else {Kind.CODED, Kind.CHOSEN})
    assert reader.read(blob, PRIMER) == PROSE


@pytest.mark.parametrize("lanes", [writer.Lanes(), writer.Lanes(tokens=16)], ids=["one lane", "lanes"])
def test_both_readers_decode_exact_files_of_the_built_in_model(lanes, primer, tmp_path):
    for name in ("config.json", "exact.safetensors", "mem.safetensors", "tokenizer.json"):
        if (PRIMER / name).exists():
            shutil.copy(PRIMER / name, tmp_path)
    modeller = exact_vectors.Modeller(tmp_path)
    tokens = writer.tokens_of(PROSE[:200], modeller.table)
    group = modeller.coded(len(tokens), writer.told(tokens), lanes=lanes)
    blob = bytes(modeller.file(group, lanes=lanes, model=None, digest=modeller.block.fingerprint[:4]))
    assert reader.read(blob, tmp_path) == PROSE[:200]
    assert cramzip.decompress(blob, primer) == PROSE[:200]


# ---------------------------------------------------------------- corrections and vectors, beyond what files reach

SIZES = (1, 2, 3, 9, 40, 2049)
SPREADS = (0.01, 1.0, 5.0, 40.0)  # of logits; the first has nothing but near tokens, the last hopeless ones


@pytest.mark.parametrize("exponent", [0, 2, 6, 12, 13, 15])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("spread", SPREADS)
def test_reference_reader_decodes_corrections_of_any_logits(size, spread, exponent):
    random = np.random.RandomState(size)
    logits = (random.randn(21, size) * spread).astype(np.float32)
    logits[::4] = np.round(logits[::4])  # ties
    tokens = random.randint(size, size=21)
    encoder = TokenEncoder(size, 2.0**-exponent)
    for chunk in (slice(0, 13), slice(13, 21)):
        encoder.chunk(rank(torch.from_numpy(logits[chunk]), torch.from_numpy(tokens[chunk]), 2.0**-exponent))
    decoder = corrections.Corrections(encoder.finish(), size, exponent)
    found = []
    for t, row in enumerate(logits):
        if t in (0, 13):
            decoder.begin_chunk(13 if t == 0 else 8)
        found.append(decoder.token(row))
    decoder.coder.check_end()
    assert found == tokens.tolist()


@pytest.mark.parametrize("seed", range(150))
def test_both_readers_make_the_same_of_any_bytes(seed):
    random = np.random.RandomState(seed)
    size, exponent = SIZES[seed % len(SIZES)], int(random.randint(16))
    logits = (random.randn(16, size) * 3).astype(np.float32)
    data = random.bytes(random.randint(1, 40))
    if seed % 3:  # such that Shift is 0, without exceptions
        data = bytes([random.randint(0xC0, 0x100)]) + data

    def by_reference():
        decoder = corrections.Corrections(data, size, exponent)
        decoder.begin_chunk(len(logits))
        for row in logits:
            yield decoder.token(row)
        decoder.coder.check_end()

    def by_library():
        decoder = TokenDecoder(data, size, 2.0**-exponent)
        decoder.begin_chunk(len(logits))
        for t in range(len(logits)):
            yield decoder.token(t, Step(torch.from_numpy(logits[t : t + 1]), 2.0**-exponent), 0)
        decoder.finish()

    assert until_refused(by_reference()) == until_refused(by_library())


def until_refused(tokens):
    """The tokens, and None if they end with a refusal."""
    out = []
    try:
        for token in tokens:
            out.append(token)
    except (corrections.Impossible, DamagedFileError):
        out.append(None)
    return out


@pytest.mark.parametrize("coding", Coding, ids=lambda coding: coding.name)
@pytest.mark.parametrize("width", [1, 7, 16, 100, 257])
def test_both_readers_make_the_same_of_vectors(coding, width):
    mem = torch.from_numpy(np.random.RandomState(width).randn(3, width).astype(np.float32))
    quantized = quantize.quantize(mem, coding)
    numbers = reader.parse_vectors(pack(quantized), coding, width)
    ours = numbers if coding is Coding.FLOAT16 else reader.transform(numbers)
    np.testing.assert_allclose(ours, quantize.dequantize(quantized).numpy(), rtol=0, atol=2e-6 * width**0.5)


# ---------------------------------------------------------------- the model at hand


def test_library_and_reference_reader_agree_on_the_fingerprint(lm):
    assert llama.fingerprint(llama.read_config(MODEL), llama.read_tensors(MODEL)) == lm.fingerprint


def test_library_and_reference_reader_agree_on_the_tokenizer_hash(lm):
    assert llama.tokenizer_hash(llama.token_table(MODEL)) == lm.tokenizer_hash


@pytest.mark.parametrize("n_at_once", [1, 7, 100])
def test_plain_forward_pass_agrees_with_transformers(n_at_once):
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    ours = llama.Llama(llama.read_config(MODEL), llama.read_tensors(MODEL))
    x = np.random.RandomState(0).uniform(-1, 1, (100, ours.width)).astype(np.float32)
    cache = ours.empty_cache(len(x))
    begins = range(0, len(x), n_at_once)
    logits = np.stack([ours.logits(x[begin : begin + n_at_once], begin, cache) for begin in begins])
    with torch.no_grad():
        expected = theirs(inputs_embeds=torch.from_numpy(x)[None]).logits[0].numpy()
    last = [min(begin + n_at_once, len(x)) - 1 for begin in begins]
    np.testing.assert_allclose(logits, expected[last], atol=1e-3)


def test_fingerprint_ignores_how_a_model_was_saved_and_nothing_else():
    config, tensors = llama.read_config(MODEL), llama.read_tensors(MODEL)
    saved_otherwise = {"use_cache": False, "transformers_version": "9", **config, "dtype": "float16"}
    assert llama.fingerprint(saved_otherwise, tensors) == llama.fingerprint(config, tensors)
    assert llama.fingerprint({**config, "rms_norm_eps": 1e-6}, tensors) != llama.fingerprint(config, tensors)
    assert llama.fingerprint(config, tensors[:-1]) != llama.fingerprint(config, tensors)


def test_fingerprint_does_not_depend_on_the_cut_into_files(tmp_path):
    tensors = make_model.weights()
    for i, name in enumerate(tensors):
        (tmp_path / f"{i}.safetensors").write_bytes(make_model.safetensors_file({name: tensors[name]}))
    weight_map = {name: f"{i}.safetensors" for i, name in enumerate(tensors)}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert llama.read_tensors(tmp_path) == llama.read_tensors(MODEL)


def test_sentencepiece_entries_stand_for_bytes_as_section_9_says(tmp_path):
    vocab = {e: i for i, e in enumerate(["<unk>", "<s>", "\u2581the", "<0x0A>", "<0x0AB>", "\u2581\u2581", "é"])}
    vocab["late"] = 9  # ids 7 and 8 have no entry, and added tokens go on with the number of entries
    (tmp_path / "tokenizer.json").write_text(
        json.dumps(
            {
                "added_tokens": [
                    {"id": 1, "content": "<s>", "special": True},
                    {"id": 8, "content": "\u2581x", "special": False},
                ],
                "decoder": {
                    "type": "Sequence",
                    "decoders": [
                        {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
                        {"type": "ByteFallback"},
                    ],
                },
                "model": {"type": "BPE", "unk_token": "<unk>", "vocab": vocab},
            }
        )
    )
    table = [None, None, b" the", b"\n", b"<0x0AB>", b"  ", "é".encode(), None, "\u2581x".encode(), b"late"]
    assert llama.token_table(tmp_path) == table


# ---------------------------------------------------------------- positions


def test_both_readers_know_the_endings_of_the_specification():
    rows = re.findall(r"^\| (\d+) to (\d+) \| ([a-z0-9, ]+) \|$", SPECIFICATION, re.MULTILINE)
    told = [(int(first), int(last), names.split(", ")) for first, last, names in rows]
    assert all(last - first + 1 == len(names) for first, last, names in told)
    assert [name for *_, names in told for name in names] == list(ENDINGS) == reader.ENDINGS
    assert told[0][1] == IN_FIRST_BYTES


@pytest.mark.parametrize("ending", [ENDINGS[0], ENDINGS[13], ENDINGS[14], ENDINGS[-1], "Z", "7z", "abcdefghijklmn"])
def test_both_readers_read_endings(ending):
    sink = io.BytesIO()
    size = writing.write(sink, Header(1, hashlib.sha256(b"a").digest()[:4], ending=ending), list(stored_groups(b"a")))
    blob = sink.getvalue()
    assert size - 17 == {True: 0, False: 1}[ending in ENDINGS[:14]] + len(ending) * (ending not in ENDINGS)
    assert reading.read(blob).header.ending == reader.parse_header(reader.Cursor(blob, "header")).ending == ending
    assert reader.read(blob) == cramzip.decompress(blob) == b"a"


def test_the_specification_counts_positions_as_the_readers_do():
    """The readers are held to it by vectors that just fit the model, and others that just do not."""
    (formula,) = re.findall(r"^    (min\(T - N, Context_Tokens\) .*)$", SPECIFICATION, re.MULTILINE)
    for kind, vectors, after_start, before in [(4, 0, False, 1), (3, 5, False, 5), (3, 5, True, 6), (2, 1, True, 2)]:
        header = reader.Header(chunk_tokens=40, context_tokens=30, vectors_after_start=after_start)
        for count in (1, 40, 41, 70, 300):
            group = reader.Group(kind, token_count=count, vector_count=vectors)
            terms = {"T": count, "N": min(count, 40), "Context_Tokens": 30, "P": before}
            assert eval(formula, terms) == group.positions(header)


def test_the_specification_counts_lanes_and_their_positions_as_the_readers_do():
    (lanes,) = re.findall(r"^    lanes = 1 in kind 2, (.*) in kinds 5 to 7$", SPECIFICATION, re.MULTILINE)
    (formula,) = re.findall(r"`(P \+ N - 1)` MUST be at most 65,536", SPECIFICATION)
    for kind, vectors, after_start, before in [
        (5, 0, False, 1),
        (6, 5, False, 5),
        (6, 5, True, 6),
        (2, 1, True, 2),
        (5, 0, False, 256),
        (7, 0, False, 17),
    ]:
        header = reader.Header(is_exact=True, lane_tokens=40, lane_limit=3, vectors_after_start=after_start)
        header.dictionary_hash = bytes(4) if before == 256 else None
        for count in (1, 40, 41, 80, 81, 300):
            group = reader.Group(kind, token_count=count, vector_count=vectors)
            terms = {"T": count, "Lane_Tokens": 40, "Lane_Limit": 3, "ceil": math.ceil}
            expected = 1 if kind == 2 else eval(lanes, terms)
            assert group.parts(header) == expected
            assert eval(formula, {"P": before, "N": math.ceil(count / expected)}) == group.positions(header)


# ---------------------------------------------------------------- what people are shown

SHOWN = [vector for vector in INDEX if vector["expect"] == "ok" and "not for showing" in vector["description"]]


def is_steering(character):
    return unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp") and character not in "\n\t"


@pytest.mark.parametrize("vector", SHOWN, ids=lambda vector: vector["file"].removesuffix(".cram"))
def test_strings_that_steer_terminals_are_shown_as_escapes(vector, cramzip):
    file = VECTORS / vector["file"]
    header = codec.read(blob_of(vector)).header
    assert any(map(is_steering, f"{header.name}{header.model.model_id if header.model else ''}"))
    runs = [cramzip("l", file), cramzip("l", "--json", file)]
    shown = "".join(run.stdout + run.stderr for run in runs)
    reference = subprocess.run([sys.executable, FORMATS / "reader.py", file], capture_output=True, text=True)
    assert not any(map(is_steering, shown + reference.stderr + (reference.stdout if header.model else "")))
    assert "\\" in shown
    assert "\\" in reference.stderr or not header.model
