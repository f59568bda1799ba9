"""The errors that cramzip raises, one exit code each. Only the command line exits."""

from __future__ import annotations

import re

LONGEST_MESSAGE = 500  # characters of what a library says


class CramError(Exception):
    """Base of all errors that a user can meet; the message is one line."""

    exit_code = 1


class InputOutputError(CramError):
    """A file cannot be read or written."""

    exit_code = 1


class UsageError(CramError):
    """The arguments make no sense together."""

    exit_code = 2


class DamagedFileError(CramError):
    """A `.cram` file breaks its specification; `stage` is one of the stages of its section 11."""

    exit_code = 3

    def __init__(self, stage: str, message: str):
        super().__init__(stage, message)  # which copies and pickles are made of again
        self.stage, self.message = stage, message

    def __str__(self) -> str:
        return f"{self.stage}: {self.message}"

    @property
    def verdict(self) -> str:
        """What is most likely the matter, for people."""
        if self.stage in ("magic", "version"):
            return ""
        if re.search(r"truncated|expected, \d+ left", self.message):
            return ": the file is cut off"
        return ": the file is damaged" + (" or cut off" if self.stage in ("header", "table", "length") else "")


class ModelError(CramError):
    """A model is missing, cannot be loaded, or is of a kind that cramzip cannot use."""

    exit_code = 4


class WrongModelError(ModelError):
    """The model or tokenizer at hand is not the one that a file was made with."""

    stage = "model"


class VerificationError(CramError):
    """What was just written does not decode to the original on this very machine."""

    exit_code = 5


class MissingModelError(ModelError):
    """A Hugging Face model that is not on this machine, and that nobody has agreed to download."""

    def __init__(self, model_id: str, missing_file: str | None = None):
        super().__init__(model_id, missing_file)
        self.model_id, self.missing_file = model_id, missing_file

    def __str__(self) -> str:
        missing = self.missing_file
        what = f"not complete in the local cache ({missing} is missing)" if missing else "not on this machine"
        return f"model {self.model_id} is {what}; --download fetches it"


def one_line(error: BaseException) -> str:
    """What an error of a library says, all of it if it is not long, for a message of one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= LONGEST_MESSAGE else f"{text[:LONGEST_MESSAGE]}..."
