"""What `dump` has written, read again line by line: a folder of runs is looked through in no time."""

import functools
import os
import re
from pathlib import Path
from typing import Any

from graftlab.config.parser import file_text, parse, parse_value, scalar
from graftlab.errors import Place

KEY = re.compile(
    r"""(?P<key>[^\s'"\[\]{}#&*!|>%@`,:?-][^:'"]*|"[^"\\]*"|'[^']*'):(?: (?P<rest>.+))?"""
)
PLAIN = re.compile(r"[^'\"\[{&*!|>%@`#]|'(?:[^']|'')*'")
WORD = re.compile(r"[a-zA-Z](?<![ntfNTF])")  # neither null nor true nor false, and no number
MANY = 10_000  # lines; those of the runs of a folder are mostly the same
EMPTY: dict[str, Any] = {"[]": [], "{}": {}}


class _Other(Exception):
    """A line that `dump` does not write."""


def reread(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return a file's values as `read_yaml` does: at once if `dump` has written it, else by the parser.

    Raises:
        ConfigError: as `read_yaml`.
    """
    text = file_text(Path(path))
    lines = [line for line in text.split("\n") if line]
    try:
        found, end = _block(lines, 0, 0)
    except _Other:
        return parse(text, str(path)).values
    whole = end == len(lines) and isinstance(found, dict)
    return found if whole else parse(text, str(path)).values


def _block(lines: list[str], at: int, indent: int) -> tuple[Any, int]:
    """Return the mapping or list that begins at a line, and where it ends."""
    if at < len(lines) and lines[at].startswith(" " * indent + "- "):
        return _list(lines, at, indent)
    found: dict[str, Any] = {}
    while at < len(lines) and lines[at].startswith(" " * indent):
        if lines[at][indent : indent + 1] in ("", " ", "-"):
            break
        key, rest = _entry(lines[at][indent:])
        if key in found:
            raise _Other
        if rest is not None:
            found[key], at = _value(rest), at + 1
        else:
            found[key], at = _below(lines, at + 1, indent)
    if not found:
        raise _Other
    return found, at


def _below(lines: list[str], at: int, indent: int) -> tuple[Any, int]:
    """Return what stands below a key: a list may stand at the key's own indent."""
    if at == len(lines):
        raise _Other
    deeper = len(lines[at]) - len(lines[at].lstrip(" "))
    if deeper < indent or (deeper == indent and not lines[at].startswith("- ", indent)):
        raise _Other
    return _block(lines, at, deeper)


def _list(lines: list[str], at: int, indent: int) -> tuple[list[Any], int]:
    found = []
    while at < len(lines) and lines[at].startswith(" " * indent + "- "):
        rest = lines[at][indent + 2 :]
        if rest.startswith("- ") or KEY.fullmatch(rest):
            lines[at] = " " * (indent + 2) + rest
            item, at = _block(lines, at, indent + 2)
        else:
            item, at = _value(rest), at + 1
        found.append(item)
    return found, at


@functools.lru_cache(MANY)
def _entry(line: str) -> tuple[str, str | None]:
    """Return a key, and what stands behind it on its line."""
    match = KEY.fullmatch(line)
    if match is None:
        raise _Other
    return match["key"].strip("'\""), match["rest"]


def _value(text: str) -> Any:
    return type(EMPTY[text])() if text in EMPTY else _scalar(text)


@functools.lru_cache(MANY)
def _scalar(text: str) -> Any:
    if text[0] == '"':
        return parse_value(text, Place())
    if not PLAIN.match(text) or " #" in text or (text[0] in "-?" and text[1:2] in ("", " ")):
        raise _Other
    if text[0] == "'":
        if not PLAIN.fullmatch(text):
            raise _Other
        return text[1:-1].replace("''", "'")
    return text if WORD.match(text) else scalar(text)
