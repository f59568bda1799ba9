"""What a program does with the library, in one page; checked by `mypy --strict`.

python examples/library.py book.cram
"""

import io
import sys

import cramzip

TEXT = b"Chapter 1\nIt was a dark night.\nChapter 2\nIn the morning it was light again.\n"


def main(path: str) -> int:
    """Write a file, read it in several ways, and take it apart; errors become exit codes as those of the command."""
    lm: cramzip.ExactLM | cramzip.FrozenLM = cramzip.load()  # or load("meta-llama/Llama-3.2-1B", download=True)
    try:
        with cramzip.open(path, "wb", lm, cramzip.CramConfig(effort=9)) as written:
            written.write(TEXT)
        with cramzip.open(path, "rt", encoding="utf-8") as lines:
            print([line.rstrip() for line in lines if line.startswith("Chapter")])
        with cramzip.open(path, "rb") as file:
            file.seek(-6, io.SEEK_END)
            print(file.read())

        blob = cramzip.compress(io.BytesIO(TEXT), lm, name="book.txt", progress=lambda n: print(f"{n} bytes more"))
        print(f"{len(TEXT)} bytes -> {len(blob)}")
        print(cramzip.decompress(blob, start=0, stop=9, max_size=100))
        groups: cramzip.CramFile = cramzip.read(blob)
        print(f"{groups.header.name}: {len(groups.entries)} group")
    except (cramzip.DamagedFileError, cramzip.UsageError, cramzip.VerificationError, cramzip.InputOutputError) as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except (cramzip.MissingModelError, cramzip.WrongModelError) as error:
        print(f"another model is needed: {error}", file=sys.stderr)
        return error.exit_code
    except (cramzip.ModelError, cramzip.CramError) as error:
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
