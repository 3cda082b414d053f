"""Text files as lines of UTF-8: their encoding and line ends are found, and what was found can be said."""

import codecs
import gzip
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Literal, NamedTuple, cast

from graftlab.errors import DataError

CHUNK = 2**20  # bytes
MARKS = (  # longest first: UTF-32's begins as UTF-16's does
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
NOT_IN_CP1252 = re.compile(rb"[\x81\x8d\x8f\x90\x9d]")
ESCAPED = re.compile("[\udc80-\udcff]")
"""How a byte that is not UTF-8 is decoded by `surrogateescape`; no valid text has it."""


class Given(NamedTuple):
    """What a run file says of its text files; None is found."""

    encoding: str | None = None
    delimiter: str | None = None
    quoting: Literal["double", "none"] | None = None


class Layout(NamedTuple):
    """How a text file is read."""

    encoding: str = "utf-8"
    end: str = "\n"
    """What ends a line: LF (a CR before it is taken off), or CR alone."""
    delimiter: str = ","
    quoting: Literal["double", "none"] = "double"
    ambiguous_line: int | None = None
    """The first line with a quote that may be a quote alone, where that cannot be told."""
    directive: bool = False
    """Whether the first line is Excel's `sep=;`, which is no row."""


def is_unicode(text: str) -> bool:
    """Return whether a text can be written as UTF-8 (lone surrogates cannot)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def opened(path: Path) -> IO[bytes]:
    """Return a file, unpacked where its name ends with .gz."""
    packed = path.name.lower().endswith(".gz")
    return cast("IO[bytes]", gzip.open(path)) if packed else path.open("rb")


def encoding_of(path: Path) -> str:
    """Return the encoding: by its mark, by NULs (UTF-16), UTF-8 where that fits, else cp1252.

    A file with some bytes that are not UTF-8 among much that is counts as damaged UTF-8.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    other = escaped = 0
    fits = True
    with opened(path) as file:
        head = file.read(CHUNK)
        for mark, name in MARKS:
            if head.startswith(mark):
                return name
        start = head[:4096]
        if start.count(b"\0") * 4 > len(start):
            return (
                "utf-16-le" if start[1::2].count(b"\0") >= start[::2].count(b"\0") else "utf-16-be"
            )
        while head:
            text = decoder.decode(head)
            if not text.isascii():
                lost = len(ESCAPED.findall(text))
                escaped += lost
                other += len(re.findall(r"[^\x00-\x7f]", text)) - lost
                fits = fits and not NOT_IN_CP1252.search(head)
            head = file.read(CHUNK)
    return "cp1252" if fits and escaped > 10 * other else "utf-8"


def end_of_lines(path: Path, encoding: str) -> str:
    """Return CR where the first line ends with it alone, as those of old Macs do, else LF."""
    with opened(path) as file:
        text = file.read(CHUNK).decode(encoding, "replace")
    found = re.search(r"\r+\n|\n|\r", text)
    return "\r" if found and found[0] == "\r" else "\n"


def lines(path: Path, encoding: str, end: str) -> Iterator[bytes]:
    """Yield lines as UTF-8, without a byte order mark and without their end.

    Raises:
        DataError: the file is not of this encoding. (What is not UTF-8 of UTF-8 is left to the reader.)
    """
    with opened(path) as file:
        if encoding == "utf-8" and end == "\n":
            for number, line in enumerate(file):
                line = line.removeprefix(codecs.BOM_UTF8) if number == 0 else line
                yield line.rstrip(b"\r\n")
            return
        errors = "surrogateescape" if encoding == "utf-8" else "strict"
        text = io.TextIOWrapper(file, encoding=encoding, errors=errors, newline=end)
        try:
            for number, decoded in enumerate(text):
                bare = decoded.removeprefix("\ufeff") if number == 0 else decoded
                yield bare.rstrip("\r\n").encode("utf-8", "surrogateescape")
        except UnicodeError as error:
            raise DataError(
                f"{path} is not {encoding} ({error}). Name its encoding as task.encoding, or save it "
                f"as UTF-8."
            ) from None
