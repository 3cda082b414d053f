"""Markdown of model cards: tables, lists and blocks of code; names in them are no markup."""

import re
from collections.abc import Iterable


def table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join("| " + " | ".join(plain(cell) for cell in line) + " |" for line in lines)


def points(lines: Iterable[str]) -> str:
    return "\n".join(f"- {plain(line)}" for line in lines)


def fenced(text: str, language: str) -> str:
    """Return text as a block of code, fenced by more backticks than stand in it."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def plain(text: object) -> str:
    """Return text that is no markup: names come from run files and data."""
    return re.sub(r"([|`<>\\*\[\]])", r"\\\1", " ".join(str(text).split()))
