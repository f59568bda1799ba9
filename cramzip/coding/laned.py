"""The method for models in exact arithmetic: tokens in lanes, coded with the model's own probabilities.

Without vectors it needs no torch, and the same original gives the same file on every machine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from ..config import CramConfig
from ..container import opened, vectors, writing
from ..container.layout import (
    CODEBOOK_HASH_SIZE,
    DICTIONARY_TOKENS,
    MAX_POSITIONS,
    MOST_CHOSEN,
    MOST_LEARNING,
    PROBE_SIZE,
)
from ..container.records import (
    MOST_DICTIONARY_HASH,
    STANDARD_LANES,
    BuiltinModel,
    Entry,
    Group,
    Header,
    Kind,
    Lanes,
    Parameters,
)
from ..container.stored import expected_entry, order_0_size, stored_group
from ..container.vectors import QuantizedMem
from ..container.wire import Bytes
from ..container.writing import modelled_group
from ..errors import UsageError
from ..exact.codebook import Codebook
from ..exact.dictionary import Context
from ..exact.lanes import costs, encode_lanes, faults
from ..exact.learner import Learner
from ..exact.run import Options, lane_lengths
from ..exact.weights import BLOCK
from ..lm.codebook import excluded
from ..lm.exact import ExactLM
from ..lm.identity import reference
from .choosing import Choice, beginnings, choose
from .exact_decode import embeddings, learner_of
from .method import Coded, Method, Progress, versions
from .view import Chunk

if TYPE_CHECKING:
    from .cram import Goal

# Lanes by effort: a lane begins without context, but lanes side by side are decoded sooner.
LANES = {1: Lanes(128, 64), 2: Lanes(256, 48), 3: Lanes(256, 48), 4: Lanes(512, 32), 5: Lanes(512, 32)}
LANES |= {6: Lanes(1024, 24, MOST_LEARNING), 7: Lanes(1024, 16, MOST_LEARNING)}
LANES |= {8: Lanes(2048, 12, MOST_LEARNING), 9: Lanes(4096, 8, MOST_LEARNING)}
MOST_WIDE = 2**12  # tokens of a lane of a model with float weights
SEGMENT_BYTES = 2**20  # of a segment, and so about of a group
CRAMMED_SEGMENT_BYTES = 2**17
CRAMMING_SHARE = 0.9  # of the work on a group with vectors, as progress counts it
NOISE_EXPONENT = 5  # floats differ from exact logits by about so little, 2^-5; what is crammed keeps clear of it
TRIED_WHOLE = 2048  # tokens of a group that is coded with entries of the codebook, and without, to see what is smaller
TRIED_TOKENS = 64  # of each lane of others: as long as an entry is seen
WRITTEN_OUT = 4  # bytes of standard parameters, which a file that names a codebook does not leave out
MAX_RECITED = 1000  # tokens of a chunk that is recited


class Laned(Method):
    """A model in exact arithmetic, and how a text is crammed with it. Raises UsageError for what it cannot do."""

    lm: ExactLM

    def __init__(self, lm: ExactLM, config: CramConfig):
        self.lm = lm
        self.n_vectors = int(config.exact) if config.vectors is None else config.vectors
        if config.context:
            raise UsageError(f"context: {lm.model_id} reads in lanes; what a token sees cannot be chosen")
        if lm.dictionary and self.n_vectors:
            raise UsageError("a dictionary is for text without vectors")
        if lm.given and (self.n_vectors or lm.dictionary):
            raise excluded("vectors and a dictionary")
        self.config, self.expected = replace(config, vectors=self.n_vectors, context=None), 0.0
        self.lanes = _lanes(self.config, is_wide=lm.is_wide)
        if self._has_dictionary:
            self.lanes = replace(self.lanes, learning=1)
        if self.n_vectors:
            length = self._crammed_length()
            self.lanes = self.lanes if config.exact else replace(self.lanes, tokens=length)
            self.goal = self._goal(length)
        longest = self.lanes.tokens if self.n_vectors else MAX_POSITIONS - self._has_dictionary * DICTIONARY_TOKENS
        self.group_tokens = 0 if config.exact else self.lanes.most * longest

    def _crammed_length(self) -> int:
        """Tokens of a lane with vectors, or of what is recited: no more than a model sees that is trained in torch."""
        length, most = MAX_RECITED if self.config.exact else self.lanes.tokens, self.lm.frozen.context
        if most is None or not self.lm.is_wide or self.config.chunk_tokens is not None:
            return length
        return max(1, min(length, most - self.n_vectors - 1))

    def _goal(self, length: int) -> Goal:
        """What vectors are optimised for: the same model in torch. What comes out is verified in exact arithmetic."""
        frozen = self.lm.frozen
        from .cram import Goal
        from .ranked import with_profile

        parameters = Parameters(NOISE_EXPONENT, length, 0, self.lm.start)
        self.config, self.expected = with_profile(frozen, self.config)
        goal = Goal.of(frozen, self.config, parameters)
        if frozen.context is not None and goal.view.positions(length, self.n_vectors) > frozen.context:
            raise UsageError(
                f"{self.n_vectors} vectors and {length} tokens do not fit into the {frozen.context} positions of the "
                "model"
            )
        return goal

    def segment_size(self, remaining: int, capacity: float) -> int:
        if self.config.exact:
            from .recited import recited_segment_size

            return recited_segment_size(self.goal, capacity, learns=capacity == self.expected)
        most = CRAMMED_SEGMENT_BYTES if self.n_vectors else SEGMENT_BYTES
        return -(-remaining // max(1, -(-remaining // most)))

    def code(self, ids: Sequence[int], capacity: float, progress: Progress) -> Coded:
        if self.config.exact:
            from .recited import recited_groups

            return recited_groups(self.goal, ids, capacity, self._faults, progress)
        coded = [self._coded(part, progress) for part in self._parts(ids)]
        return Coded([group for group, _ in coded], sum(gain for _, gain in coded))

    def _parts(self, ids: Sequence[int]) -> list[Sequence[int]]:
        """The tokens of each group: of as few groups as lanes have positions for."""
        n_groups = -(-len(ids) // self.group_tokens)
        borders = [len(ids) * i // n_groups for i in range(n_groups + 1)]
        return [ids[begin:end] for begin, end in pairwise(borders)]

    def _coded(self, ids: Sequence[int], progress: Progress) -> tuple[Group, float]:
        """The group of some tokens, stored where that is smaller, and the bits that its vectors saved."""
        content = self.lm.tokenizer.decode(ids)
        n_lanes = self.lanes.count(len(ids))
        told = 0

        def tell(share: float) -> None:
            nonlocal told
            if (new := int(share * len(content)) - told) > 0:
                progress(new)
                told += new

        crammed = CRAMMING_SHARE if self.n_vectors else 0.0
        mem = self._crammed(ids, n_lanes, lambda share: tell(crammed * share)) if self.n_vectors else []
        options = Options(
            vectors=embeddings(mem) if mem else None,
            after_start=bool(mem) and self.goal.view.after_start,
            context=self._context,
            threads=min(self.lm.threads, n_lanes),
            adapts=self.lanes.adapts(len(ids)),
            progress=lambda n: tell(crammed + (1 - crammed) * n / len(ids)),
        )
        tokens, choice = self._tokens(ids, n_lanes, options)
        payload = b"".join(map(vectors.pack, mem)) + tokens
        kind = Kind.PROMPTED if mem else Kind.CHOSEN if choice else Kind.CODED
        group = modelled_group(kind, content, len(ids), self.n_vectors, payload)
        tell(1.0)
        smallest = writing.entries_size([expected_entry(content)])
        most = opened.most_tokens(len(tokens), has_dictionary=self._has_dictionary)
        if smallest <= writing.entries_size([group.entry]) or len(ids) > most:
            return stored_group(content), 0.0
        if not mem:
            return group, choice.saved if choice else 0.0
        without = Options(threads=options.threads, learner=self._learner(n_lanes))
        return group, 8.0 * (len(encode_lanes(self.lm.model, ids, n_lanes, without)) - len(tokens))

    def _tokens(self, ids: Sequence[int], n_lanes: int, options: Options) -> tuple[bytes, Choice | None]:
        """Coded tokens, and the entries of the codebook that their lanes begin with, where these make them shorter.

        The model alone says which entries may; with all that is learned, the beginnings of all lanes are coded to see.
        """

        def coded(part: Sequence[int], like: Options = options) -> bytes:
            learner = self._learner(n_lanes)
            return encode_lanes(self.lm.model, part, n_lanes, replace(like, learner=learner))

        codebook, model = self._codebook, self.lm.model
        if codebook is None or MOST_CHOSEN + -(-len(ids) // n_lanes) > MAX_POSITIONS:
            return coded(ids), None
        choice = choose(model, codebook, ids, n_lanes, options.threads)
        if choice is None:
            return coded(ids), None
        begun = replace(options, codebook=codebook, choices=choice.entries)
        tried = ids if len(ids) <= TRIED_WHOLE else beginnings(ids, n_lanes, TRIED_TOKENS)
        without, with_choice = (coded(tried, replace(like, progress=None)) for like in (options, begun))
        saved = 8 * (len(without) - len(with_choice))
        found = choice._replace(saved=saved + choice.spent) if saved > self._naming_bits else None
        if len(tried) == len(ids):
            return (with_choice if found else without), found
        return coded(ids, begun if found else options), found

    @property
    def _codebook(self) -> Codebook | None:
        is_wanted = self.config.codebook and not self.n_vectors and not self._has_dictionary
        if not is_wanted:
            return None
        return self.lm.given.codebook if self.lm.given else self.lm.codebook

    @property
    def _naming_bits(self) -> int:
        """What the header needs more, at most, where a group has chosen."""
        if self.lm.given is None:
            return 0
        return 8 * (CODEBOOK_HASH_SIZE + (0 if self.lm.is_wide else WRITTEN_OUT))

    def _learner(self, n_lanes: int) -> Learner | None:
        return learner_of(self.lm, n_lanes, has_dictionary=self._has_dictionary) if self.lanes.learning else None

    @property
    def _has_dictionary(self) -> bool:
        return self.lm.dictionary is not None

    @property
    def _context(self) -> Context | None:
        return self.lm.dictionary.context if self.lm.dictionary else None

    def _crammed(self, ids: Sequence[int], n_lanes: int, progress: Callable[[float], None]) -> list[QuantizedMem]:
        """Vectors for every lane."""
        from .cram import cram

        chunks, first = [], 0
        for length in lane_lengths(len(ids), n_lanes):
            chunks.append(Chunk(ids[first : first + length]))
            first += length
        done = 0.0

        def tell(index: int, share: float) -> None:
            nonlocal done
            done += share / len(chunks)
            progress(min(done, 1.0))

        return [result.mem for result in cram(self.goal, chunks, n_slots=self.goal.slots, progress=tell)]

    def _faults(self, chunk: Chunk, mem: QuantizedMem) -> list[int]:
        options = Options(vectors=embeddings([mem]), after_start=self.goal.view.after_start)
        return faults(self.lm.model, chunk.tokens, options)

    def bits(self, ids: Sequence[int], part: slice) -> float:
        """After the tokens of a block before it."""
        first = max(0, part.start - BLOCK)
        found = costs(self.lm.model, ids[first : part.stop], 1)
        return float(found[part.start - first :].sum())

    def stored_bits(self, content: bytes, part: slice) -> float:
        """By the order-0 entropy of the segment: whatever repeats itself is learned here, too."""
        share: float = (part.stop - part.start) / len(content)
        return 8 * order_0_size(content) * share

    def cost(self, ids: Sequence[int]) -> float:
        return 8.0 * len(encode_lanes(self.lm.model, ids, 1, Options(context=self._context, learner=self._learner(1))))

    def stored_entry(self, content: Bytes) -> Entry:
        return expected_entry(content)

    def described(self, header: Header, gain: float | None) -> Header:
        block = None if gain is None else self.goal.described(gain)
        probe = self.lm.probe[:PROBE_SIZE] if self.lm.probe else None
        codebook = self.lm.given.hash[:CODEBOOK_HASH_SIZE] if self.lm.given else None
        header = replace(
            header, model=reference(self.lm), vectors=block, lanes=self.lanes, probe=probe, codebook=codebook
        )
        if self.lm.dictionary is None:
            return header
        size = min(len(header.original_hash), MOST_DICTIONARY_HASH)
        model = BuiltinModel(b"") if self.lm.source.is_builtin else header.model
        return replace(header, name=None, model=model, dictionary=self.lm.dictionary.hash[:size])

    @property
    def conditions(self) -> dict[str, Any]:
        found: dict[str, Any] = {"lanes": asdict(self.lanes), "packages": versions("tokenizers", "zstandard")}
        if self.lm.dictionary:
            found["dictionary"] = self.lm.dictionary.hash.hex()
        if self.lm.given:
            found["codebook"] = self.lm.given.hash.hex()
        if not self.n_vectors:
            return found
        import torch

        from .ranked import known_of_vectors

        return {
            **found,
            "packages": versions("numpy", "tokenizers", "torch", "transformers", "zstandard"),
            "device": self.lm.frozen.device,
            "threads": torch.get_num_threads(),
            "expected": known_of_vectors(self),
        }


def _lanes(config: CramConfig, *, is_wide: bool) -> Lanes:
    """How a text is dealt to lanes. Models that are larger than the built-in one make more of what is far away."""
    if config.exact:
        return STANDARD_LANES
    usual = STANDARD_LANES if config.vectors else LANES[config.effort]
    if is_wide:
        usual = replace(usual, tokens=min(2 * usual.tokens, MOST_WIDE))
    return usual if config.chunk_tokens is None else replace(usual, tokens=config.chunk_tokens)
