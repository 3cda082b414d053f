"""CSV and its like: which delimiter parts the fields, whether quotes quote, and the rows."""

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

from graftlab.data import textfile
from graftlab.data.rows import Numbered
from graftlab.data.textfile import Given, Layout, is_unicode
from graftlab.errors import DataError

DELIMITERS = (",", ";", "\t", "|")
SAMPLE = 200  # lines that tell the delimiter
MAX_FIELD = 16 * 2**20  # bytes; a longer one is a broken file, not an example
QUOTED = re.compile(r'"(?:[^"]|"")*"')
DIRECTIVE = re.compile(rb"^sep=(.)$")

Quoting = Literal["double", "none"]


def usual_delimiter(path: Path) -> str:
    """Return the delimiter that a file's name promises."""
    return "\t" if ".tsv" in path.suffixes[-2:] else ","


def look(path: Path, given: Given, encoding: str, end: str) -> Layout:
    """Return how a table is read: what is given, and what its lines tell of the rest."""

    def lines() -> Iterator[bytes]:
        return textfile.lines(path, encoding, end)

    usual, directive = usual_delimiter(path), DIRECTIVE.match(next(lines(), b""))
    delimiter = given.delimiter or (directive[1].decode() if directive else None)
    start = 1 if directive else 0
    if delimiter is None:
        delimiter = find_delimiter(list(islice(lines(), SAMPLE + 1)), usual)
    quoting, line = given.quoting, None
    if quoting is None:
        quoting, line = find_quoting(islice(lines(), start, None), delimiter)
    place = None if line is None else line + start
    return Layout(encoding, end, delimiter, quoting, place, bool(directive))


def find_delimiter(sample: Sequence[bytes], usual: str) -> str:
    """Return what parts the fields of lines: the usual one where all rows have as many as the header."""
    whole = len(sample) <= SAMPLE
    texts = [line.decode("utf-8", "surrogateescape") + "\n" for line in sample]
    best = (0.0, False, 0), usual
    for candidate in DELIMITERS:
        try:
            records = [row for row in csv.reader(texts, delimiter=candidate) if row]
        except csv.Error:
            continue
        records = records if whole else records[:-1]  # the last one may be cut
        if not records or len(records[0]) < 2:
            continue
        width = len(records[0])
        like = sum(len(row) == width for row in records) / len(records)
        best = max(best, ((like, candidate == usual, width), candidate))
    return best[1]


class _Quotes(NamedTuple):
    open_lines: int
    """Lines with a field that begins with a quote and does not end with its own."""
    uneven_lines: int
    """Lines that have not as many delimiters as the header."""
    first: int | None


def find_quoting(lines: Iterable[bytes], delimiter: str) -> tuple[Quoting, int | None]:
    """Return whether quotes quote, and the first line where they may be quotes alone if that is open.

    Where each line has as many fields as the header although quotes stand open in it, they are quotes
    alone. Tables parted by tabs are read so; in others, where quoting is the rule, it is said.
    """
    found = _count(lines, delimiter)
    if found.open_lines <= found.uneven_lines:
        return "double", None
    return ("none", None) if delimiter == "\t" else ("double", found.first)


def _count(lines: Iterable[bytes], delimiter: str) -> _Quotes:
    mark = delimiter.encode()
    width, opened, uneven, first = None, 0, 0, None
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        count = line.count(mark)
        width = count if width is None else width
        uneven += count != width
        if b'"' in line and _stands_open(line, delimiter):
            opened += 1
            first = first or number
    return _Quotes(opened, uneven, first)


def _stands_open(line: bytes, delimiter: str) -> bool:
    fields = line.decode("utf-8", "surrogateescape").split(delimiter)
    return any(field.startswith('"') and not QUOTED.fullmatch(field) for field in fields)


def blank_rows(path: Path, layout: Layout) -> int:
    """Return how many rows have cells and nothing in any of them, as spreadsheets save them.

    Raises:
        DataError: a quote never closes.
    """
    nothing = layout.delimiter.encode() + b'" \t'
    lines = islice(textfile.lines(path, layout.encoding, layout.end), int(layout.directive), None)
    if all(not line or line.strip(nothing) for line in lines):  # quicker than the rows
        return 0
    records = (values for _, values in _records(path, layout) if not isinstance(values, csv.Error))
    return sum(bool(values) and _is_blank(values) for values in records)


def _is_blank(values: Sequence[str]) -> bool:
    return not any(map(str.strip, values))


def rows(path: Path, layout: Layout) -> Iterator[Numbered]:
    """Yield the rows of a table, or what is wrong with one; those with nothing in any cell are passed over.

    Of columns with one name, the first is `NAME.1`; one without a name is `column N`, if there are several.

    Raises:
        DataError: it has no header, or a quote never closes.
    """
    records = _records(path, layout)
    first = next((r for _, r in records if isinstance(r, csv.Error) or not _is_blank(r)), None)
    if first is None or isinstance(first, csv.Error):
        raise DataError(f"{path} has no header: its first line must name the columns.")
    header = _header(path, first)
    for index, (line, values) in enumerate(records):
        if isinstance(values, csv.Error):
            yield index, f"line {line}: {values} (task.quoting: none takes quotes as text)"
        elif not _is_blank(values):
            yield index, _row(header, values, line)


def _records(path: Path, layout: Layout) -> Iterator[tuple[int, list[str] | csv.Error]]:
    """Yield the line at which each record ends, and its fields or why it has none. `Raises:` DataError."""
    source = textfile.lines(path, layout.encoding, layout.end)
    # Bytes that are not UTF-8 become lone surrogates here, which no valid text has; told per row below.
    texts = (line.decode("utf-8", "surrogateescape") + "\n" for line in source)
    skipped = int(layout.directive)
    quoting: Literal[0, 3] = csv.QUOTE_NONE if layout.quoting == "none" else csv.QUOTE_MINIMAL
    csv.field_size_limit(MAX_FIELD)
    reader = csv.reader(
        islice(texts, skipped, None), delimiter=layout.delimiter, quoting=quoting, strict=True
    )
    while True:
        values: list[str] | csv.Error
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "end of data" in str(error):
                raise DataError(
                    f"{path}: a quote is opened and never closed. Where quotes are only quotes, say "
                    f"task.quoting: none.",
                    kind="syntax",
                ) from None
            values = error
        yield reader.line_num + skipped, values


def _header(path: Path, names: Sequence[str]) -> list[str]:
    """Return a name of its own for each column. `Raises:` DataError: a name made so is taken."""
    times, seen = Counter(names), Counter[str]()
    header = []
    for position, name in enumerate(names, start=1):
        seen[name] += 1
        own = f"{name}.{seen[name]}" if name else f"column {position}"
        header.append(own if times[name] > 1 else name)
    if len(set(header)) < len(header):
        raise DataError(f"{path}: a column name stands twice in the header: {', '.join(names)}.")
    return header


def _row(header: list[str], values: list[str], line: int) -> dict[str, Any] | str:
    if len(values) != len(header):
        return f"line {line}: {len(values)} fields where the header has {len(header)}"
    if any("\0" in value for value in values):
        return f"line {line}: a NUL byte stands in it"
    if not all(value.isascii() or is_unicode(value) for value in values):
        return f"line {line}: not UTF-8 (task.encoding names another encoding)"
    return dict(zip(header, values, strict=True))
