"""What `make demo` shows: a text of examples/texts there and back again, and the bench table.

Runs the command line as a user would, in a temporary folder.
"""

import filecmp
import subprocess
import sys
import tempfile
from pathlib import Path

TEXT = Path(__file__).parent / "texts" / "lighthouse.txt"


def run(*arguments: str, folder: str) -> None:
    print("$ cramzip", *arguments, flush=True)
    subprocess.run([sys.executable, "-m", "cramzip", *arguments], cwd=folder, check=True)
    print(flush=True)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="cramzip-demo-") as folder:
        run("c", "-1", str(TEXT), "-o", "lighthouse.cram", folder=folder)
        run("l", "-v", "lighthouse.cram", folder=folder)
        run("d", "lighthouse.cram", folder=folder)
        if not filecmp.cmp(TEXT, Path(folder) / TEXT.name, shallow=False):
            sys.exit("the text that came back differs")
        print("The text that came back is the same, byte for byte.\n", flush=True)
        run("bench", "-1", "--settings", "default,smallest", str(TEXT), folder=folder)


if __name__ == "__main__":
    main()
