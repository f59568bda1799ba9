"""Filters (section 13 of cram.md), from filtered bytes to the original. Written from the specification alone."""

import re
import unicodedata
from functools import cache

from corrections import Bit, Impossible, RangeDecoder

MARK, LINES, MAC_LINES, WIDE, LETTERS, BLANKS, CAPITALS = 1, 2, 3, (4, 5, 6, 7), 8, 9, 10
STRAYS, LINE_BLANKS, PREFIX, REPEATS, ESCAPES = 11, 12, 13, 14, 16
CODECS = {4: "utf-16-le", 5: "utf-16-be", 6: "utf-32-le", 7: "utf-32-be"}
PAGES = {
    32: "cp1252",
    33: "cp1250",
    34: "cp1251",
    35: "iso8859-1",
    36: "iso8859-2",
    37: "iso8859-15",
    38: "koi8-r",
    39: "mac-roman",
    40: "cp437",
    41: "cp1253",
    42: "cp1254",
    43: "cp850",
    44: "cp866",
}
DOUBLE = {48: "gbk", 49: "cp932"}
KNOWN = {
    MARK,
    LINES,
    MAC_LINES,
    *WIDE,
    LETTERS,
    BLANKS,
    CAPITALS,
    STRAYS,
    LINE_BLANKS,
    PREFIX,
    REPEATS,
    ESCAPES,
    *PAGES,
    *DOUBLE,
}
SMALL = (  # first and last small letter, step, and how much lower the large one is
    "61-7A 1 32, E0-F6 1 32, F8-FE 1 32, 101-12F 2 1, 133-137 2 1, 13A-148 2 1, 14B-177 2 1, 17A-17E 2 1, "
    "3AC-3AC 1 38, 3AD-3AF 1 37, 3B1-3C1 1 32, 3C3-3CB 1 32, 3CC-3CC 1 64, 3CD-3CE 1 63, "
    "430-44F 1 32, 450-45F 1 80, 461-481 2 1, 48B-4BF 2 1, 4D1-4FF 2 1"
)
COMPOSED = "00C0-0233 0386-03CE 0400-04FF 1E00-1EF9 1F00-1FFC 3041-30FE AC00-D7A3"


class Malformed(Exception):
    """Filters, or filtered bytes, that no writer makes."""


def require(truth, message):
    if not truth:
        raise Malformed(message)


def take_varint(data):
    """-> the varint that `data` begins with, and the rest."""
    for i in range(min(len(data), 9)):
        if data[i] < 0x80:
            require(data[i] or i == 0, "a varint is not in its shortest encoding")
            return sum((data[j] & 0x7F) << 7 * j for j in range(i + 1)), data[i + 1 :]
    raise Malformed("a varint is too long, or cut")


def parse(payload):
    """-> (Filter_ID, parameters) of each filter, and what follows them."""
    require(payload and 1 <= payload[0] <= 8, "Filter_Count is not 1 to 8")
    count, rest, steps = payload[0], payload[1:], []
    for _ in range(count):
        require(rest and rest[0] in KNOWN, "Filter_ID is reserved, or missing")
        number = rest[0]
        length, rest = take_varint(rest[1:])
        require(length <= len(rest), "parameters are longer than the payload")
        steps.append((number, rest[:length]))
        rest = rest[length:]
    return steps, rest


def invert(steps, data, size):
    """The original of `size` bytes."""
    require(len(data) <= 3 * size, "there are more than three filtered bytes for a byte of the original")
    for number, parameters in reversed(steps):
        data = invert_one(number, parameters, data, 3 * size)
        require(len(data) <= 3 * size, "there are more than three bytes before a filter for a byte of the original")
    return data


def invert_one(number, parameters, data, limit):
    if number in PAGES or number in DOUBLE or number == MARK:
        require(not parameters, "parameters of a filter that has none")
        if number in DOUBLE:
            return from_double_bytes(data, DOUBLE[number])
        return from_page(data, PAGES[number]) if number in PAGES else b"\xef\xbb\xbf" + data
    if number in WIDE:
        require(len(parameters) < (2 if number < 6 else 4), "a whole unit in the parameters")
        return generalised(data).encode(CODECS[number], "surrogatepass") + parameters
    if number in (LINES, MAC_LINES):
        return replaced(data, b"\n", b"\r\n" if number == LINES else b"\r", parameters)
    if number == BLANKS:
        return replaced(data, b" ", b"\xc2\xa0", parameters)
    if number == LETTERS:
        return at_places(data, f"[{''.join(map(re.escape, decompositions()))}]", decompositions().get, parameters)
    if number == CAPITALS:
        large = capitals()
        word = "[" + "".join(large) + "".join(large.values()) + "]+"
        return at_places(data, word, lambda found: "".join(large.get(c, c) for c in found), parameters)
    if number == ESCAPES:
        require(parameters[:1] in (b"\0", b"\1"), "digits are neither small nor large")
        digits = "04X" if parameters[0] else "04x"
        return at_places(data, "[\x80-\ud7ff\ue000-\U0010ffff]", lambda c: escaped(c, digits), parameters[1:])
    if number == STRAYS:
        return with_strays(data, parameters, limit)
    if number == REPEATS:
        return with_copies(data, parameters, limit)
    return with_affixes(number, data, parameters, limit)


def generalised(data):
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        raise Malformed("filtered bytes are no UTF-8") from error


def from_double_bytes(data, codec):
    try:
        text = data.decode()
        original = text.encode(codec)
        require(original.decode(codec) == text, "a character that is in no table")
    except UnicodeError as error:
        raise Malformed("no UTF-8, or a character that the encoding does not have") from error
    return original


def escaped(character, digits):
    units = character.encode("utf-16-be").hex()
    return "".join(f"\\u{int(units[i : i + 4], 16):{digits}}" for i in range(0, len(units), 4))


def page_numbers(codec):
    """The byte of each character of a code page."""
    numbers = {}
    for value in range(256):
        try:
            numbers[bytes([value]).decode(codec)] = value
        except UnicodeDecodeError:
            numbers[chr(value)] = value  # the page leaves it open
    return numbers


def from_page(data, codec):
    numbers = page_numbers(codec)
    text = generalised(data)
    require(all(character in numbers for character in text), "a character that is not in the code page")
    return bytes(numbers[character] for character in text)


def with_strays(data, parameters, limit):
    require(parameters and (parameters[0] == 0 or parameters[0] in PAGES), "a code page that is reserved, or missing")
    size, rest = take_varint(parameters[1:])
    require(size <= len(rest), "cuts are cut")
    cuts, marks = rest[:size], rest[size:]
    if parameters[0]:
        upper = {c: value for c, value in page_numbers(PAGES[parameters[0]]).items() if value > 0x7F}
        pattern = f"[{''.join(map(re.escape, upper))}]"
        data = at_places(data, pattern, lambda c: chr(0xDC00 + upper[c]), marks)
    else:
        runs(marks, 0)
    require(len(data) + size <= limit, "cuts are too long for their group")
    out, at, is_first = b"", 0, True
    while cuts:
        gap, cuts = take_varint(cuts)
        length, cuts = take_varint(cuts) if gap % 2 else (1, cuts)
        require(gap > 1 or is_first, "a cut right after another")
        require((length > 1 or gap % 2 == 0) and length <= len(cuts), "a cut of one byte with its length, or cut off")
        require(at + gap // 2 <= len(data), "a cut after the end")
        out += data[at : at + gap // 2] + cuts[:length]
        at, cuts, is_first = at + gap // 2, cuts[length:], False
    return out + data[at:]


def runs(parameters, n):
    """Whether each of n places is marked."""
    if parameters[:2] == b"\0\0":
        bits = "".join(f"{byte:08b}"[::-1] for byte in parameters[2:])
        require(len(parameters) - 2 == (n + 7) // 8 and "1" not in bits[n:], "too many bits, or too few")
        return [bit == "1" for bit in bits[:n]]
    places, marked = [], True
    while parameters:
        length, parameters = take_varint(parameters)
        require(length or not (places or not marked), "an empty run")
        require(length < n - len(places), "runs beyond the places")
        places += [marked] * length
        marked = not marked
    return places + [marked] * (n - len(places))


def replaced(data, plain, dressed, parameters):
    parts = data.split(plain)
    marks = runs(parameters, len(parts) - 1)
    out = parts[0]
    ends = [dressed if mark else plain for mark in marks]
    return out + b"".join(end + part for end, part in zip(ends, parts[1:], strict=True))


def at_places(data, pattern, change, parameters):
    text = data.decode("utf-8", "surrogateescape")
    marks = iter(runs(parameters, len(re.findall(pattern, text))))
    changed = re.sub(pattern, lambda found: change(found[0]) if next(marks) else found[0], text)
    return changed.encode("utf-8", "surrogateescape")


def decomposed(character):
    """The full canonical decomposition in Unicode 3.2."""
    if "AC00" <= f"{ord(character):04X}" <= "D7A3":
        lead, rest = divmod(ord(character) - 0xAC00, 588)
        vowel, tail = divmod(rest, 28)
        return chr(0x1100 + lead) + chr(0x1161 + vowel) + (chr(0x11A7 + tail) if tail else "")
    parts = unicodedata.ucd_3_2_0.decomposition(character)
    if not parts or parts[0] == "<":
        return character
    return "".join(decomposed(chr(int(part, 16))) for part in parts.split())


@cache
def decompositions():
    """What each composed letter consists of."""
    table = {}
    for span in COMPOSED.split():
        first, last = (int(end, 16) for end in span.split("-"))
        for letter in map(chr, range(first, last + 1)):
            is_single = len(unicodedata.ucd_3_2_0.decomposition(letter).split()) == 1
            if len(parts := decomposed(letter)) > 1 and not is_single:
                table[letter] = parts
    return table


@cache
def capitals():
    """The large letter of each small one."""
    table = {}
    for span in SMALL.split(", "):
        ends, step, less = span.split()
        first, last = (int(end, 16) for end in ends.split("-"))
        table |= {chr(code): chr(code - int(less)) for code in range(first, last + 1, int(step))}
    return table


def with_affixes(number, data, parameters, limit):
    head, parameters = take_varint(parameters)
    size, is_short = head >> 1, head & 1
    require(1 <= size <= 64, "an affix of no bytes, or too many")
    affix = b" " * size
    if number == PREFIX:
        affix, parameters = parameters[:size], parameters[size:]
        require(len(affix) == size and b"\n" not in affix, "a prefix is cut, or has a line end")
    lines = data.split(b"\n")
    marks = runs(parameters, len(lines) - 1 + bool(lines[-1]))
    for i, mark in enumerate(marks):
        before, after = (affix, b"") if number == PREFIX else (b"", affix)
        if mark:
            limit -= size if lines[i] or not is_short else 0
            require(limit >= 0, "lines are too long for their group")
            if not lines[i] and is_short:
                before, after = before.rstrip(b" "), b""
            lines[i] = before + lines[i] + after
    return b"\n".join(lines)


class Numbers:
    """Runs, distances or lengths of copies."""

    def __init__(self):
        self.recent, self.last = [], 0
        self.bits = {}

    def bit(self, *of):
        return self.bits.setdefault(of, Bit(2**21, 2))

    def take(self, number, place):
        self.recent = [number, *(other for p, other in enumerate(self.recent) if p != place)][:8]
        self.last = place

    def read(self, coder):
        for place, number in enumerate(self.recent):
            if coder.decision(self.bit(self.last, place)):
                self.take(number, place)
                return number
        size = 0
        while not coder.decision(self.bit(size)):
            size += 1
            require(size <= 32, "a number of more than 32 digits")
        number = size if size < 2 else 2 ** (size - 1) + coder.number(size - 1)
        self.take(number, 8)
        return number


def with_copies(data, parameters, limit):
    n, coded = take_varint(parameters)
    require(n, "no copies")
    coder, kinds, out = RangeDecoder(coded), [Numbers() for _ in range(3)], bytearray()
    for _ in range(n):
        run, distance, length = (kind.read(coder) for kind in kinds)
        require(run <= len(data), "a run beyond the filtered bytes")
        out, data = out + data[:run], data[run:]
        require(1 <= distance <= len(out), "a copy of what was not put out")
        require(length >= 32, "a copy of less than 32 bytes")
        require(len(out) + length <= limit, "copies are too long for their group")
        for _ in range(length):
            out.append(out[-distance])
    try:
        coder.check_end()
    except Impossible as error:
        raise Malformed("coded copies do not end where they should") from error
    return bytes(out + data)
