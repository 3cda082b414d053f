"""What is meant by an input on the command line: a file, or a text that was typed."""

import os
from pathlib import Path

ENDINGS = (
    *(".txt", ".jsonl", ".json", ".csv", ".tsv", ".parquet", ".gz", ".png", ".jpg", ".jpeg"),
    *(".safetensors", ".npy"),
)


def found(source: str) -> Path | str:
    """Return the file that is there, or the text. `Raises:` DataError: a file is meant, and is not there."""
    from graftlab.errors import DataError, near_file

    if not _is_there(source) and _looks_like_a_file(source):
        meant = near_file(Path(source))
        raise DataError(f"--input {source}: there is no such file.{meant}", kind="missing")
    return Path(source) if _is_there(source) else _as_typed(source)


def _is_there(source: str) -> bool:
    try:
        return bool(source) and Path(source).exists()
    except OSError:  # too long for a file's name
        return False


def _as_typed(source: str) -> str:
    """Return the text that was typed in UTF-8, which Python takes apart in a locale without it."""
    try:
        return os.fsencode(source).decode("utf-8")
    except UnicodeError:
        return source


def _looks_like_a_file(source: str) -> bool:
    is_word = not any(character.isspace() for character in source)
    is_path = source.startswith(("/", "./", "../", "~/")) or source.endswith("/")
    return is_word and (is_path or source.lower().endswith(ENDINGS))
