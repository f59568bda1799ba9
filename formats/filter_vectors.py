"""The test vectors with filtered groups, for make_vectors.py. Written from cram.md alone."""

from dataclasses import replace

import filters
from exact_vectors import WIDTH, Modeller, vector_bytes
from writer import FILTERED, RAW, ZSTD, RangeEncoder, VectorBlock, bad, draw, filtered, ok, raw, tokens_of, told, varint

MARK, CRLF, CR, UTF_16_LE, UTF_16_BE, UTF_32_LE, UTF_32_BE, LETTERS, BLANKS, CAPITALS = range(1, 11)
STRAYS, LINE_BLANKS, PREFIX, REPEATS, WINDOWS_1252, KOI8_R, WINDOWS_1253 = 11, 12, 13, 14, 32, 38, 41
ESCAPES, GBK, SHIFT_JIS = 16, 48, 49
BLOCK = VectorBlock(4, WIDTH)
UPPER = bytes(range(0x80, 0x100))


def coded(modeller, text, vectors=b""):
    """A group of the tokens of a text."""
    tokens = tokens_of(text, modeller.table)
    return modeller.coded(len(tokens), told(tokens), vectors)


def page(number):
    """The upper half of a code page in UTF-8."""
    characters = []
    for value in UPPER:
        try:
            characters.append(bytes([value]).decode(filters.PAGES[number]))
        except UnicodeDecodeError:
            characters.append(chr(value))
    return "".join(characters).encode()


class Teller(filters.Numbers):
    """The writer's side of a kind of numbers."""

    def write(self, coder, number):
        place = self.recent.index(number) if number in self.recent else 8
        for p in range(min(place + 1, len(self.recent))):
            coder.decision(self.bit(self.last, p), p == place)
        if place == 8:
            size = number.bit_length()
            for s in range(size + 1):
                coder.decision(self.bit(s), s == size)
            coder.number(number - 2 ** max(size - 1, 0), max(size - 1, 0))
        self.take(number, place)


def copies(*rows):
    """Parameters of filter 14."""
    coder, kinds = RangeEncoder(), [Teller() for _ in range(3)]
    for row in rows:
        for kind, number in zip(kinds, row, strict=True):
            kind.write(coder, number)
    return varint(len(rows)) + coder.shortest()


def endless():
    """A copy whose run has 33 digits or more."""
    coder, kind = RangeEncoder(), filters.Numbers()
    for size in range(33):
        coder.decision(kind.bit(size), False)
    return b"\1" + coder.shortest()


def copied(text, *rows):
    """What copies make of filtered bytes."""
    return filters.invert([(REPEATS, copies(*rows))], text, 10**4)


def cases():
    """-> name, description, filtered text, original, filters."""
    text = b"one\ntwo\n\nthree"
    yield "crlf", "all LFs are CR LF", text, text.replace(b"\n", b"\r\n"), (CRLF, b"")
    mixed = b"a\r\nb\nc\nd\r\n\re\r\n"
    yield "crlf-mixed", "CR LF, two times LF, and CR LF; a CR alone", b"a\nb\nc\nd\n\re\n", mixed, (CRLF, b"\1\2")
    yield "crlf-first-is-not", "the first LF is one", b"a\nb\n", b"a\nb\r\n", (CRLF, b"\0\1")
    yield "crlf-none", "there is no LF", b"a\rb", b"a\rb", (CRLF, b"")
    yield "cr", "LFs are CRs but the second", b"a\nb\nc\n", b"a\rb\nc\r", (CR, b"\1\1")
    yield "mark", "a byte order mark", b"text", b"\xef\xbb\xbftext", (MARK, b"")
    words = "Straße, Ж, 世, 🫖\n"
    for number, codec in filters.CODECS.items():
        yield codec, f"{codec}", words.encode(), words.encode(codec), (number, b"")
    lone = "a\ud800b\udc00".encode("utf-16-be", "surrogatepass")
    utf_8 = b"a\xed\xa0\x80b\xed\xb0\x80"
    yield "utf-16-surrogates", "two lone surrogates, and a byte more", utf_8, lone + b"!", (UTF_16_BE, b"!")
    yield "utf-32-cut", "three bytes more", b"a", b"a\0\0\0\1\2\3", (UTF_32_LE, b"\1\2\3")
    for number in (WINDOWS_1252, KOI8_R, WINDOWS_1253):
        yield (
            f"page-{number}",
            "the upper half of a code page: more tokens than bytes",
            page(number),
            UPPER,
            (number, b""),
        )
    letters = "é ệ й が 각 가 ǖ ǖ"
    parts = "e\u0301 \u1ec7 \u0438\u0306 \u304b\u3099 \u1100\u1161\u11a8 \uac00 u\u0308\u0304 \u01d6"
    yield (
        "letters",
        "composed letters, two of which were composed",
        letters.encode(),
        parts.encode(),
        (
            LETTERS,
            b"\1\1\3\1\1",
        ),
    )
    yield (
        "letters-invalid",
        "bytes that are no UTF-8 beside a letter",
        b"\xe1\xc3\xa9\xa9",
        b"\xe1e\xcc\x81\xa9",
        (LETTERS, b""),
    )
    yield "blanks", "no-break blanks, and a blank", b"a b c d", b"a\xc2\xa0b c\xc2\xa0d", (BLANKS, b"\1\1")
    yield (
        "capitals",
        "words in capitals, and one as it is",
        b"The End Of this Story",
        b"THE END OF this STORY",
        (CAPITALS, b"\3\1"),
    )
    small = "".join(filters.capitals())
    yield (
        "capitals-all",
        "all small letters",
        small.encode(),
        "".join(filters.capitals().values()).encode(),
        (CAPITALS, b""),
    )
    words = "café é — é".encode(), b"ca\xfff\xe9 \xc3\xa9 \xe2\x80\x94 \xe9\x80\x81"
    yield (
        "strays",
        "bytes of windows-1252 in UTF-8, and three that are cut out",
        *words,
        (STRAYS, b"\x20\6\4\xff\x17\2\x80\x81\1\2"),
    )
    yield "strays-alone", "cuts, and no page", b"one", b"\x80on\xff\xfee", (STRAYS, b"\0\6\0\x80\5\2\xff\xfe")
    yield "strays-invalid", "filtered bytes that are no UTF-8", b"\xff\xc3\xa9", b"\xff\xe9", (STRAYS, b"\x20\0")
    names = "é \u20ac 🫖 é\uffff".encode(), rb"\u00e9 \u20ac \ud83e\uded6 " + "é".encode() + rb"\uffff"
    yield "escapes", "escapes in small digits, a pair, and a character that was none", *names, (ESCAPES, b"\0\3\1")
    yield "escapes-large", "escapes in large digits", "é\u00ff".encode(), rb"\u00E9\u00FF", (ESCAPES, b"\1")
    yield "gbk", "GBK", "老人, a\n".encode(), "老人, a\n".encode("gbk"), (GBK, b"")
    words = "\u65e5\u672c\u3067\uff76\u2252".encode(), b"\x93\xfa\x96\x7b\x82\xc5\xb6\x81\xe0"
    yield "shift-jis", "Shift-JIS: two bytes, one, and a character with two codes", *words, (SHIFT_JIS, b"")
    ends = b"a\r\nb\nc\r\nd\ne\r\nf\ng\r\nh\ni\nj\r\n"
    yield "bits", "a bit for each line end", ends.replace(b"\r", b""), ends, (CRLF, b"\0\0\x55\2")
    for what, mode, original in [("", 0, b"a \n \nb\nc "), ("-short", 1, b"a \n\nb\nc ")]:
        yield (
            f"line-blanks{what}",
            "blanks at the ends of lines but one",
            b"a\n\nb\nc",
            original,
            (
                LINE_BLANKS,
                bytes([2 + mode, 2, 1]),
            ),
        )
    for what, mode, original in [("", 0, b"> a\n> \nb\n"), ("-short", 1, b"> a\n>\nb\n")]:
        yield (
            f"prefix{what}",
            "what lines begin with but one",
            b"a\n\nb\n",
            original,
            (PREFIX, bytes([4 + mode]) + b"> \2"),
        )
    yield (
        "prefix-longest",
        "64 bytes before every line",
        b"a\nb",
        b"-" * 64 + b"a\n" + b"-" * 64 + b"b",
        (
            PREFIX,
            varint(128) + b"-" * 64,
        ),
    )
    line = b"the quick brown fox and the lazy dog\n"
    for what, description, rows in [
        ("", "a copy", [(37, 37, 37)]),
        ("-begin", "a copy of all there is, after which nothing comes", [(37, 37, 32)]),
        ("-overlapping", "a copy that is longer than its distance", [(3, 2, 33)]),
        (
            "-recent",
            "copies with the same numbers as others before",
            [(36, 36, 32), (0, 36, 64), (1, 36, 32)],
        ),
        (
            "-many",
            "more different numbers than are recent",
            [(33 - i, 33 - i, 32 + i) for i in range(9)] + [(0, 33, 32)],
        ),
    ]:
        text = line * (1 + 9 * (what == "-many"))
        yield f"repeats{what}", description, text, copied(text, *rows), (REPEATS, copies(*rows))


def valid(modeller):
    for name, description, text, original, *steps in cases():
        yield ok(f"filter-{name}", description, modeller.file(filtered(coded(modeller, text), original, *steps)))
    steps = (UTF_16_LE, b""), (MARK, b""), (CRLF, b""), (PREFIX, b"\2|")
    group = filtered(coded(modeller, b"a\nb"), "\ufeff|a\r\n|b".encode("utf-16-le"), *steps)
    line = b"the quick brown fox and the lazy dog\n"
    all_steps = (*steps, (REPEATS, copies((37, 37, 37))))
    text = "\ufeff" + f"|{line.decode()[:-1]}\r\n" * 2
    group5 = filtered(coded(modeller, line), text.encode("utf-16-le"), *all_steps)
    yield ok("filters-five", "five filters: the last is inverted first", modeller.file(group5))
    yield ok("filters-four", "four filters: the last is inverted first", modeller.file(group))
    other = coded(modeller, b"as it is\n")
    yield ok(
        "filtered-beside-others", "a filtered group between two that are not", modeller.file(other, group, raw(b"!"))
    )
    group = filtered(coded(modeller, b"a"), b"||||||||a", *[(PREFIX, b"\2|")] * 8)
    yield ok("filters-eight", "as many filters as there may be", modeller.file(group))
    group = filtered(coded(modeller, b"a\nb", vector_bytes(4, 4)), b"a\r\nb", (CRLF, b""))
    yield ok("filtered-prompted", "filters, then a vector, then coded tokens", modeller.file(group, vectors=BLOCK))
    recited = modeller.recited(vector_bytes(11, 4, 2), 24)
    group = filtered(recited, recited.content.replace(b"\n", b"\r\n"), (CRLF, b""))
    yield ok("filtered-recited", "filters, then two vectors, in an exact file", modeller.file(group, vectors=BLOCK))


def valid_in_floats(modeller):
    """In files that are not exact."""
    tokens = tokens_of(b"a\nb\n", modeller.table)
    group = filtered(modeller.predicted(len(tokens), told(tokens)), b"a\r\nb\n", (CRLF, b"\1"))
    yield ok("filtered-predicted", "filters, then corrections", modeller.file(group))
    group = filtered(
        modeller.recited(draw(3, 4), 1), b"\xef\xbb\xbf" + modeller.recited(draw(3, 4), 1).content, (MARK, b"")
    )
    yield ok("filtered-recited-in-floats", "filters, then a vector", modeller.file(group, vectors=VectorBlock(4)))


def invalid_table(modeller):
    group = filtered(coded(modeller, b"a\nb\n"), b"a\r\nb\r\n", (CRLF, b""))
    for what, kind in [("raw", RAW), ("zstd", ZSTD), ("7", 7)]:
        file = modeller.file(group, replace(raw(b"left"), kind=FILTERED | kind))
        yield bad(f"table-filtered-{what}", f"Kind {FILTERED | kind} is reserved", file)
    many = replace(group, tokens=3 * len(group.content) + 1)
    yield bad("table-filtered-tokens", "Token_Count is three times Size, plus one", modeller.file(many))


def invalid_payload(modeller):
    group = coded(modeller, b"a\nb\n")
    for what, description, block in [
        ("none", "Filter_Count is 0", b"\0"),
        ("nine", "Filter_Count is 9", b"\x09" + b"\2\0" * 9),
        ("reserved-0", "Filter_ID is 0", b"\1\0\0"),
        ("reserved-15", "Filter_ID is 15", b"\1\x0f\0"),
        ("reserved-45", "Filter_ID is 45", b"\1\x2d\0"),
        ("parameters-long", "parameters end beyond the payload", b"\1\2\x7f"),
        ("not-shortest", "the length of parameters is not in its shortest encoding", b"\1\2\x80\0"),
        ("too-long", "the length of parameters is a varint of ten bytes", b"\1\2" + b"\x80" * 9 + b"\1"),
    ]:
        payload = block + group.payload
        file = modeller.file(replace(group, kind=FILTERED | group.kind, payload=payload, content=b"a\r\nb\r\n"))
        yield bad(f"payload-filters-{what}", description, file)
    for what, payload in [("count", b""), ("id", b"\1"), ("length", b"\1\2"), ("second", b"\2\2\0")]:
        file = modeller.file(replace(group, kind=FILTERED | group.kind, payload=payload, content=b"a\r\nb\r\n"))
        yield bad(f"payload-filters-end-in-{what}", "the payload ends within the filters", file)
    recited = filtered(modeller.recited(vector_bytes(11, 4, 2), 24), b"-" * 30, (MARK, b""))
    file = modeller.file(replace(recited, payload=recited.payload + b"\1"), vectors=BLOCK)
    yield bad("payload-filtered-recited-long", "a byte follows filters and vectors", file)
    prompted = filtered(coded(modeller, b"a\nb", vector_bytes(4, 4)), b"a\r\nb", (CRLF, b""))
    file = modeller.file(replace(prompted, payload=prompted.payload[: 2 + len(vector_bytes(4, 4))]), vectors=BLOCK)
    yield bad("payload-filtered-prompted-short", "the rest is shorter than the vectors", file)


def invalid_content(modeller):
    lines, size = b"a\nb\n", 12
    longest = max((token or b"" for token in modeller.table), key=len)
    for what, description, text, *steps in [
        ("runs-too-long", "runs longer than the places", lines, (CRLF, b"\3")),
        ("runs-of-all", "a run that leaves none for the last", lines, (CRLF, b"\2")),
        ("runs-empty", "a run of length 0 that is not the first", lines, (CRLF, b"\1\0")),
        ("runs-not-shortest", "a run is not in its shortest encoding", lines, (CRLF, b"\x81\0")),
        ("runs-cut", "parameters end in a varint", lines, (CR, b"\x81")),
        ("runs-too-many", "a varint of ten bytes", lines, (CRLF, b"\x80" * 9 + b"\1")),
        ("runs-without-places", "runs, and no blank", lines, (BLANKS, b"\0")),
        ("mark-parameters", "parameters of filter 1", lines, (MARK, b"\0")),
        ("page-parameters", "parameters of a code page", lines, (WINDOWS_1252, b"\0")),
        ("page-other", "U+0416 in windows-1252", "Ж".encode(), (WINDOWS_1252, b"")),
        ("page-same-number", "U+00E9 in KOI8-R", "é".encode(), (KOI8_R, b"")),
        ("page-invalid", "bytes that are no UTF-8", b"a\xff", (WINDOWS_1252, b"")),
        ("page-surrogate", "a surrogate in a code page", b"\xed\xa0\x80", (WINDOWS_1252, b"")),
        ("utf-16-invalid", "bytes that are no UTF-8", b"a\xff", (UTF_16_LE, b"")),
        ("utf-16-unit", "a whole unit in the parameters", lines, (UTF_16_LE, b"ab")),
        ("utf-32-unit", "a whole unit in the parameters", lines, (UTF_32_BE, b"abcd")),
        ("letters-too-long", "more runs than letters", "é".encode(), (LETTERS, b"\1")),
        ("capitals-too-long", "more runs than words", b"one two", (CAPITALS, b"\1\1")),
        ("bits-few", "a byte of bits too few", b"\n" * 9, (CRLF, b"\0\0\1")),
        ("bits-many", "a byte of bits too many", lines, (CRLF, b"\0\0\1\0")),
        ("bits-left-over", "a bit for the third of two places", lines, (CRLF, b"\0\0\4")),
        ("escapes-none", "no parameters of escapes", lines, (ESCAPES, b"")),
        ("escapes-digits", "digits of a third kind", lines, (ESCAPES, b"\2")),
        ("escapes-runs", "more runs than characters", "é".encode(), (ESCAPES, b"\0\1")),
        ("gbk-parameters", "parameters of GBK", lines, (GBK, b"\0")),
        ("gbk-other", "U+00E6 in GBK", "æ".encode(), (GBK, b"")),
        ("shift-jis-other", "U+00A5 in Shift-JIS", "¥".encode(), (SHIFT_JIS, b"")),
        ("shift-jis-invalid", "bytes that are no UTF-8", b"a\xff", (SHIFT_JIS, b"")),
        ("strays-none", "no parameters of stray bytes", lines, (STRAYS, b"")),
        ("strays-page", "stray bytes of a code page that is reserved", lines, (STRAYS, b"\x2d\0")),
        ("strays-size", "Cut_Size is more than there is", lines, (STRAYS, b"\x20\2\0")),
        ("strays-gap", "a cut right after another", lines, (STRAYS, b"\x20\4\0\x80\0\x81")),
        ("strays-length", "a cut of one byte with its length", lines, (STRAYS, b"\x20\3\1\1\x80")),
        ("strays-cut-off", "the last cut ends too soon", lines, (STRAYS, b"\x20\3\1\2\x80")),
        ("strays-end", "a cut after the end", lines, (STRAYS, b"\x20\2\x0a\x80")),
        ("strays-runs", "more runs than characters of the page", lines, (STRAYS, b"\x20\0\1")),
        ("strays-runs-no-page", "runs, and no page", lines, (STRAYS, b"\0\0\1")),
        ("line-blanks-none", "no blank", lines, (LINE_BLANKS, b"\1")),
        ("line-blanks-65", "65 blanks", b"a", (LINE_BLANKS, varint(130))),
        ("line-blanks-cut", "no parameters", lines, (LINE_BLANKS, b"")),
        ("prefix-none", "a prefix of no bytes", lines, (PREFIX, b"\0")),
        ("prefix-65", "a prefix of 65 bytes", b"a", (PREFIX, varint(130) + b"-" * 65)),
        ("prefix-cut", "a prefix of two bytes, of which one is there", lines, (PREFIX, b"\4-")),
        ("prefix-line-end", "a prefix with a line end", lines, (PREFIX, b"\2\n")),
        ("prefix-runs", "more runs than lines", lines, (PREFIX, b"\2-\1\1")),
        ("filtered-too-long", "more than 36 filtered bytes for 12", longest * (36 // len(longest) + 1), (MARK, b"")),
        ("too-long", "a prefix makes more than 36 bytes of 12", b"a\n", (LINE_BLANKS, varint(120))),
        (
            "too-long-between",
            "the last of two filters makes too many bytes",
            b"a",
            (CRLF, b""),
            (LINE_BLANKS, varint(80)),
        ),
        ("repeats-cut", "no parameters", lines, (REPEATS, b"")),
        ("repeats-none", "no copies", b"-" * size, (REPEATS, b"\0")),
        ("repeats-run", "a run beyond the filtered bytes", lines, (REPEATS, copies((5, 4, 32)))),
        ("repeats-distance-0", "a distance of 0", lines, (REPEATS, copies((4, 0, 32)))),
        ("repeats-distance", "a distance beyond what was put out", lines, (REPEATS, copies((3, 4, 32)))),
        ("repeats-short", "a copy of 31 bytes", b"ab", (REPEATS, copies((2, 2, 31)))),
        ("repeats-too-long", "a copy makes more than 36 bytes of 12", lines, (REPEATS, copies((4, 4, 33)))),
        ("repeats-endless", "a number of more than 32 digits", lines, (REPEATS, endless())),
        ("repeats-zero", "the last byte is 0", b"ab", (REPEATS, copies((2, 2, 32)) + b"\0")),
        ("repeats-bytes", "bytes after the last copy", b"ab", (REPEATS, copies((2, 2, 32)) + b"\0\0\0\0\1")),
        ("size-less", "one byte less than Size", b"-" * 8, (MARK, b"")),
        ("size-more", "one byte more than Size", b"-" * 10, (MARK, b"")),
    ]:
        group = filtered(coded(modeller, text), b"-" * size, *steps)
        yield bad(f"content-filter-{what}", description, modeller.file(group))
    euros = filtered(
        coded(modeller, b"\x82\xac" + "€".encode() * 3), b"\x80" * 4, (WINDOWS_1252, b""), (STRAYS, b"\0\2\0\xe2")
    )
    yield bad("content-filter-strays-too-long", "11 bytes and the 2 of the cuts, for 4", modeller.file(euros))
    group = filtered(coded(modeller, lines), lines, (CRLF, b""))
    yield bad("content-filter-checksums", "Size and checksums are of the filtered bytes", modeller.file(group))


def all_vectors(exact_folder, modeller_in_floats):
    modeller = Modeller(exact_folder)
    for makers in (valid, invalid_table, invalid_payload, invalid_content):
        for vector in makers(modeller):
            yield replace(vector, model=exact_folder.name)
    yield from valid_in_floats(modeller_in_floats)
