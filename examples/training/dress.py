"""The dress of a text: ways of writing that change its bytes and not what it says.

A model that has only seen tidy sentences pays dearly for capitals, quoted mail or another line width.  `dressed` shows
it such variants.  This module knows nothing of tokens.
"""

import re
import textwrap


def wrap(text, rng):
    """Hard line breaks at a width between 60 and 80, in lines that are longer."""
    width = int(rng.integers(60, 81))
    fill = textwrap.TextWrapper(width, break_long_words=False, break_on_hyphens=False, replace_whitespace=False)
    return "\n".join(fill.fill(line) if len(line) > width else line for line in text.split("\n"))


def unwrap(text, rng):
    """One line for each paragraph: long lines are joined with a next one that begins with a letter."""
    return re.sub(r"(?<=[^\n]{50})\n(?=[^\W\d_])", " ", text)


def trail(text, rng):
    """A blank at the end of every line, or of the lines that hold something."""
    return re.sub(r"\n" if rng.random() < 0.5 else r"(?<=[^\n])\n", " \n", text)


def space_sentences(text, rng):
    """Two blanks after a full stop."""
    return re.sub(r"(?<=[a-z][.!?]) (?=[A-Z\"'“])", "  ", text)


def curl(text, rng):
    """Curly quotes and apostrophes for straight ones, or the other way round where the text has curly ones."""
    if re.search("[“”’]", text):
        return text.translate(str.maketrans("“”‘’", "\"\"''"))
    text = re.sub(r'(?<![^\s(\[—-])"', "“", text).replace('"', "”")
    return re.sub(r"(?<![^\s(\[“—-])'", "‘", text).replace("'", "’")


def indent(text, rng):
    """Two, four or eight blanks, or a tab, before every line that holds something."""
    before = ("  ", "    ", "        ", "\t")[rng.integers(4)]
    return re.sub(r"^(?=[^\n])", before, text, flags=re.MULTILINE)


def tabs(text, rng):
    """Tabs for the blanks, two or four a step, that lines begin with."""
    step = 2 * int(rng.integers(1, 3))
    return re.sub(r"^ +", lambda m: "\t" * (len(m[0]) // step) + " " * (len(m[0]) % step), text, flags=re.MULTILINE)


def quote(text, rng):
    """Quoted mail: "> " before every line, twice now and then."""
    before = "> > " if rng.random() < 0.2 else "> "
    return re.sub(r"^", before, text, flags=re.MULTILINE)


def upper(text, rng):
    return text.upper()


def lower(text, rng):
    return text.lower()


# Name, dress and the share of the rows that get it, in the order in which one is put over the other: quoted mail is
# wrapped first.  Capitals have the largest share, since they cost the model most: twice the bits of sentence case.
DRESSES = (
    ("capitals", upper, 0.08),
    ("lower case", lower, 0.025),
    ("curly quotes", curl, 0.03),
    ("two blanks after a full stop", space_sentences, 0.02),
    ("line breaks at 60 to 80", wrap, 0.04),
    ("no line breaks", unwrap, 0.02),
    ("blanks at line ends", trail, 0.02),
    ("tabs for blanks", tabs, 0.02),
    ("indented", indent, 0.03),
    ("quoted", quote, 0.03),
)


def draw_dresses(rng):
    """The dresses of one row, mostly none."""
    return [dress for _, dress, share in DRESSES if rng.random() < share]


def dressed(text, dresses, rng):
    for dress in dresses:
        text = dress(text, rng)
    return text
