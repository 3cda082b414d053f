"""Texts that models are read on: those of a file, or the sentences that come with graftlab."""

from itertools import islice
from pathlib import Path

from graftlab.contracts import Texts
from graftlab.data import readers
from graftlab.embeddings.texts import COLUMN, with_text
from graftlab.errors import ConfigError, DataError
from graftlab.runs.forgetting import GENERAL

FEWEST = 4
"""The debiased estimate of HSIC divides by N - 3."""
MOST = 64
"""Unless another number is asked for: each is read by itself, at some milliseconds in a small model."""


def read(file: Path | None = None, count: int = MOST) -> Texts:
    """Return the first texts of a file: lines of a .txt, or the column `text` of a table; without a file the
    sentences that come with graftlab, which are general English.

    Raises:
        ConfigError: there is no column `text`.
        DataError: the file is missing or cannot be read, a text is empty, or there are fewer than four.
    """
    path = file or GENERAL
    if path.is_dir():
        raise ConfigError(f"{path} is a folder. Give a file of texts, one a line.")
    rows = with_text(str(path), readers.read(path, (COLUMN, "")), COLUMN)
    values = [text for text, _ in islice(rows, count)]
    if len(values) < FEWEST:
        raise DataError(
            f"{path} has {len(values)} texts: activations are compared over {FEWEST} or more."
        )
    return Texts(tuple(values), f"{len(values)} texts of {path.name if file else 'graftlab'}")
