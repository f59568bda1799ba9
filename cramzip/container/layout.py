"""The numbers that writing and reading have in common: magic, flags and limits of formats/cram.md."""

from __future__ import annotations

MAGIC = b"\x9dCZ"
VERSION = 1  # in bits 0 to 3 of its byte; bits 4 to 7 are the number of an ending
ENDING_SHIFT = 4
GENOMICS_MAGIC = b"CRAM"
HAS_NAME, HAS_MODEL, BUILTIN, IS_STANDARD, HAS_VECTORS, IS_EXACT = 0x01, 0x02, 0x04, 0x08, 0x10, 0x80
HASH_SHIFT = 5  # bits 5 and 6 say which of HASH_SIZES it is
CHECK_SIZE = 4
MAX_TOKENS = 2**16  # of a group that ranks correct, and of a chunk or lane
MAX_CODED_TOKENS = 2**22
MAX_LANES = 2**10
MAX_POSITIONS = 2**16  # of a lane
MOST_LEARNING = 2
IS_WIDE = 0x80  # of Learning: the model was not made for exact arithmetic, and Probe follows
PROBE_SIZE = 4
HAS_CODEBOOK = 0x40  # of Learning: lanes choose from a codebook that is not the model's own, and its hash follows
CODEBOOK_HASH_SIZE = 4
LEAST_ADAPTED = 2**10  # tokens of a group
MOST_CHOSEN = 16  # vectors of an entry of a codebook
DICTIONARY_TOKENS = 255  # of a dictionary, that the model reads
MAX_VECTORS = 2**12
MAX_WIDTH = 2**14
MAX_VOCABULARY = 2**24
MAX_GAIN = 2**48
NOISE_EXPONENTS = (0, 15)
MIN_ENTRY_SIZE = 7  # of a raw group
IS_FILTERED = 0x80  # of Kind
