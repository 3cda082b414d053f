"""Rows of local files, one at a time, with what is wrong with a row in place of the row."""

import csv
import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from graftlab.errors import DataError

Numbered = tuple[int, dict[str, Any] | str]
"""A row's index in its source (from 0; for JSON Lines the line) and the row, or why it is none."""

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
PACKED = tuple(f"{suffix}.gz" for suffix in SUFFIXES[:-1])
IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
MAX_LINE = 16 * 2**20  # bytes; a longer line is a broken file, not an example


def suffix_of(path: Path) -> str:
    """Return `.jsonl`, `.csv`, ... without a trailing `.gz`; `""` for what is not read here."""
    name = path.name.lower().removesuffix(".gz")
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), "")


def read(path: Path, columns: tuple[str, str] = ("image", "label")) -> Iterator[Numbered]:
    """Yield the rows of a file, or of an image folder (`class/file`), whose two columns are named here.

    Raises:
        DataError: it is missing, empty, not UTF-8 as a whole, damaged, or of a kind that is not known.
    """
    if path.is_dir():
        yield from _image_folder(path, columns)
        return
    if not path.exists():
        raise DataError(f"there is no file {path}.")
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty.")
    readers = {".jsonl": _jsonl, ".json": _json, ".csv": _csv, ".tsv": _csv, ".parquet": _parquet}
    suffix = suffix_of(path)
    if suffix not in readers:
        known = ", ".join((*SUFFIXES, *PACKED))
        raise DataError(
            f"{path}: files of this kind are not read. Known: {known}; or an image folder."
        )
    try:
        yield from readers[suffix](path)
    except (EOFError, zlib.error, OSError) as error:
        raise DataError(f"{path} is damaged or cannot be read: {error}. Get it again.") from error


def _lines(path: Path) -> Iterator[bytes]:
    """Yield lines without a byte order mark and without their end."""
    with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as file:
        for number, line in enumerate(file):
            if number == 0:
                if line.startswith((b"\xff\xfe", b"\xfe\xff")) or line[:40].count(b"\0") > 10:
                    raise DataError(f"{path} is UTF-16. Save it as UTF-8.")
                line = line.removeprefix(b"\xef\xbb\xbf")
            yield line.rstrip(b"\r\n")


def _jsonl(path: Path) -> Iterator[Numbered]:
    for index, line in enumerate(_lines(path)):
        if line.strip():
            yield index, _parse_line(line)


def _parse_line(line: bytes) -> dict[str, Any] | str:
    if len(line) > MAX_LINE:
        return f"the line has {len(line)} bytes, more than {MAX_LINE}"
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return f"byte 0x{line[error.start]:02x} at position {error.start + 1} is not UTF-8"
    except (json.JSONDecodeError, RecursionError) as error:
        if b"\0" in line:
            return "a NUL byte stands in the line"
        return f"not JSON: {error}"
    return row if isinstance(row, dict) else f"not a JSON object but a {type(row).__name__}"


def _json(path: Path) -> Iterator[Numbered]:
    try:
        rows = json.loads(b"\n".join(_lines(path)).decode("utf-8"))
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 ({error}). Save it as UTF-8.") from None
    except (json.JSONDecodeError, RecursionError) as error:
        hint = " One object a line? Then name it .jsonl." if "Extra data" in str(error) else ""
        raise DataError(f"{path} is not JSON: {error}.{hint}") from None
    if not isinstance(rows, list):
        raise DataError(f"{path} holds a {type(rows).__name__}; a list of objects is wanted.")
    for index, row in enumerate(rows):
        yield index, row if isinstance(row, dict) else f"not an object but a {type(row).__name__}"


def _csv(path: Path) -> Iterator[Numbered]:
    delimiter = "\t" if suffix_of(path) == ".tsv" else ","
    # Bytes that are not UTF-8 become lone surrogates here, which no valid text has; told per row below.
    lines = (line.decode("utf-8", "surrogateescape") + "\n" for line in _lines(path))
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    header = next(reader, None)
    if not header or not any(header):
        raise DataError(f"{path} has no header: its first line must name the columns.")
    if len(set(header)) < len(header):
        raise DataError(f"{path}: a column name stands twice in the header: {', '.join(header)}.")
    csv.field_size_limit(MAX_LINE)
    index = 0
    while True:
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "end of data" in str(error):
                raise DataError(f"{path}: a quote is opened and never closed.") from None
            yield index, f"line {reader.line_num}: {error}"
        else:
            if not values:
                continue
            yield index, _csv_row(header, values, reader.line_num)
        index += 1


def _csv_row(header: list[str], values: list[str], line: int) -> dict[str, Any] | str:
    if len(values) != len(header):
        return f"line {line}: {len(values)} fields where the header has {len(header)}"
    if any("\0" in value for value in values):
        return f"line {line}: a NUL byte stands in it"
    if not all(value.isascii() or is_unicode(value) for value in values):
        return f"line {line}: not UTF-8"
    return dict(zip(header, values, strict=True))


def is_unicode(text: str) -> bool:
    """Return whether a text can be written as UTF-8 (lone surrogates cannot)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _parquet(path: Path) -> Iterator[Numbered]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        index = 0
        for batch in file.iter_batches(1024):
            for row in batch.to_pylist():
                yield index, row
                index += 1
    except pyarrow.ArrowException as error:
        raise DataError(f"{path} is not a readable Parquet file: {error}.") from error


def _image_folder(path: Path, columns: tuple[str, str]) -> Iterator[Numbered]:
    """Yield file and folder name, sorted; files of other kinds are named, not read."""
    folders = sorted(folder for folder in path.iterdir() if folder.is_dir())
    if not folders:
        raise DataError(f"{path} has no folders in it: an image folder is class/file.")
    files = [file for folder in folders for file in sorted(folder.rglob("*")) if file.is_file()]
    for index, file in enumerate(files):
        label = file.relative_to(path).parts[0]
        if file.name.startswith("."):
            continue
        if file.suffix.lower() in IMAGES:
            yield index, dict(zip(columns, (str(file.absolute()), label), strict=True))
        else:
            yield index, f"{file.name} is not an image file ({', '.join(IMAGES)})"


def read_text(path: Path, column: str) -> Iterator[Numbered]:
    """Yield `{column: line}` for each line of a text file that is not blank. `Raises:` as `read`."""
    if not path.exists():
        raise DataError(f"there is no file {path}.")
    for index, line in enumerate(_lines(path)):
        if not line.strip():
            continue
        try:
            yield index, {column: line.decode("utf-8")}
        except UnicodeDecodeError as error:
            yield (
                index,
                f"byte 0x{line[error.start]:02x} at position {error.start + 1} is not UTF-8",
            )
