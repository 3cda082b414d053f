"""Rows of local files, one at a time, with what is wrong with a row in place of the row."""

import json
import logging
import zlib
from collections.abc import Iterator
from pathlib import Path

from graftlab.contracts import NOTED, Note
from graftlab.data import tables, textfile
from graftlab.data.rows import Numbered
from graftlab.data.textfile import Given, Layout
from graftlab.errors import ConfigError, DataError, near_file, wrong

log = logging.getLogger("graftlab")

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".txt")
PACKED = tuple(f"{suffix}.gz" for suffix in SUFFIXES if suffix != ".parquet")
TABLES = (".csv", ".tsv")
IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
WORKBOOKS = (".xlsx", ".xls", ".xlsm", ".xlsb", ".ods", ".numbers")
MAX_LINE = 16 * 2**20  # bytes; a longer line is a broken file, not an example
SYSTEM = {  # files and folders that systems and programs leave behind, beside those that begin with a dot
    *("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r", "__macosx"),
    *("$recycle.bin", "system volume information", "lost+found", "@eadir", "#recycle"),
    "__pycache__",
}


def suffix_of(path: Path) -> str:
    """Return `.jsonl`, `.csv`, ... without a trailing `.gz`; `""` for what is not read here."""
    name = path.name.lower().removesuffix(".gz")
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), "")


def look(path: Path, given: Given = Given()) -> Layout:  # noqa: B008  it is immutable
    """Return how a file is read: what is given, and what it tells itself.

    Raises:
        DataError: it is missing, empty, damaged, or of a kind that is not known.
    """
    if path.is_dir():
        return Layout()
    _check(path)
    suffix = suffix_of(path)
    if suffix == ".parquet":
        return Layout()
    try:
        encoding = given.encoding or textfile.encoding_of(path)
        end = textfile.end_of_lines(path, encoding)
        if suffix in TABLES:
            return tables.look(path, given, encoding, end)
    except (EOFError, zlib.error, OSError) as error:
        raise _damaged(path, error) from error
    return Layout(encoding, end)


def _check(path: Path) -> None:
    """Refuse what no reader takes. `Raises:` DataError."""
    if not path.exists():
        raise DataError(f"there is no file {path.absolute()}.{near_file(path)}", kind="missing")
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty.")
    with path.open("rb") as file:
        head = file.read(4)
    if path.suffix.lower() in WORKBOOKS or (head == b"PK\3\4" and suffix_of(path)):
        raise DataError(
            f"{path} is a workbook of a spreadsheet program, which is not read: save its sheet as "
            f"CSV (in Excel: File, Save As, CSV UTF-8), and name that."
        )
    if not suffix_of(path):
        known = ", ".join((*SUFFIXES, *PACKED))
        raise DataError(
            f"{path}: files of this kind are not read. Known: {known}; or an image folder."
        )
    if head.startswith(b"\x1f\x8b") and not path.name.lower().endswith(".gz"):
        raise DataError(f"{path} is packed by gzip. Name it {path.name}.gz.")


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} is damaged or cannot be read: {error}. Get it again.", kind="damaged")


def read(
    path: Path, columns: tuple[str, str] = ("image", "label"), layout: Layout | None = None
) -> Iterator[Numbered]:
    """Yield the rows of a file, or of an image folder (`class/file`), whose two columns are named here.

    Without a layout it is found, and logged where it is not the usual one. Rows of a text file have the
    first column alone.

    Raises:
        DataError: the file is missing, empty, not of its encoding, damaged, or of a kind that is not known.
    """
    if layout is None:
        layout = look(path)
        for note in notes(path, layout):
            log.warning("%s", note, extra=NOTED)
    if path.is_dir():
        yield from _image_folder(path, columns)
        return
    _check(path)
    try:
        match suffix_of(path):
            case ".jsonl":
                yield from _jsonl(path, layout)
            case ".json":
                yield from _json(path, layout)
            case ".parquet":
                yield from _parquet(path)
            case ".txt":
                yield from read_text(path, columns[0], layout)
            case _:
                yield from tables.rows(path, layout)
    except (EOFError, zlib.error, OSError) as error:
        raise _damaged(path, error) from error


def notes(path: Path, layout: Layout) -> list[Note]:
    """Return what a run's reader has to know of how a file is read: nothing where it is the usual way."""
    if path.is_dir():
        hidden = sum(
            is_system(file.relative_to(path)) for file in path.rglob("*") if file.is_file()
        )
        return [Note.of("system_files", folder=str(path), count=hidden)] if hidden else []
    found = {}
    if layout.encoding != "utf-8":
        found["encoding"] = layout.encoding
    if layout.end == "\r":
        found["line_end"] = "CR"
    if suffix_of(path) in TABLES:
        if layout.delimiter != tables.usual_delimiter(path):
            found["delimiter"] = layout.delimiter
        if layout.quoting == "none":
            found["quoting"] = "none"
    said = [Note.of("read_as", file=str(path), found=found)] if found else []
    if layout.ambiguous_line is not None:
        said.append(Note.of("quotes_open", file=str(path), line=layout.ambiguous_line))
    if suffix_of(path) in TABLES and (blank := tables.blank_rows(path, layout)):
        said.append(Note.of("rows_blank", file=str(path), count=blank))
    return said


def check_given(given: Given, paths: list[Path]) -> None:
    """Refuse a key that none of the files has a use for. `Raises:` ConfigError."""
    suffixes = {"" if path.is_dir() else suffix_of(path) for path in paths}
    table, text = suffixes & set(TABLES), suffixes - {"", ".parquet"}
    for key, value in given._asdict().items():
        if value is not None and not (text if key == "encoding" else table):
            held = ", ".join(path.name for path in paths)
            said = f"task.{key} has no effect on {held}. Leave it out."
            raise ConfigError(wrong(("task", key), said, kind="idle", given=value))


def is_system(path: Path) -> bool:
    """Return whether a file, or a folder above it, is one that systems leave behind or hide."""
    return any(
        part.startswith((".", "~$")) or part.lower() in SYSTEM
        for part in path.parts
        if part != ".."
    )


def _jsonl(path: Path, layout: Layout) -> Iterator[Numbered]:
    for index, line in enumerate(textfile.lines(path, layout.encoding, layout.end)):
        if line.strip():
            yield index, _parse_line(line)


def _parse_line(line: bytes) -> dict[str, object] | str:
    if len(line) > MAX_LINE:
        return f"the line has {len(line)} bytes, more than {MAX_LINE}"
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return _not_utf8(line, error)
    except (
        ValueError,
        RecursionError,
    ) as error:  # ValueError: also an integer of thousands of digits
        if b"\0" in line:
            return "a NUL byte stands in the line"
        return f"not JSON: {_why(error)}"
    return row if isinstance(row, dict) else f"not a JSON object but a {type(row).__name__}"


def _json(path: Path, layout: Layout) -> Iterator[Numbered]:
    try:
        text = b"\n".join(textfile.lines(path, layout.encoding, layout.end)).decode("utf-8")
        rows = json.loads(text)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 ({error}). Name its encoding as task.encoding, or save it as UTF-8."
        ) from None
    except (
        ValueError,
        RecursionError,
    ) as error:  # ValueError: also an integer of thousands of digits
        hint = " One object a line? Then name it .jsonl." if "Extra data" in str(error) else ""
        raise DataError(f"{path} is not JSON: {_why(error)}.{hint}") from None
    if not isinstance(rows, list):
        raise DataError(f"{path} holds a {type(rows).__name__}; a list of objects is wanted.")
    for index, row in enumerate(rows):
        yield index, row if isinstance(row, dict) else f"not an object but a {type(row).__name__}"


def _why(error: Exception) -> str:
    """Return why JSON is none; Python's advice on long integers is not for the reader of data."""
    return str(error).partition("; use sys")[0]


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
    """Yield file and folder name, sorted; files of other kinds are named, those of systems left out."""
    folders = sorted(
        folder for folder in path.iterdir() if folder.is_dir() and not is_system(Path(folder.name))
    )
    if not folders:
        raise DataError(f"{path} has no folders in it: an image folder is class/file.")
    files = [file for folder in folders for file in sorted(folder.rglob("*")) if file.is_file()]
    for index, file in enumerate(files):
        within = file.relative_to(path)
        if is_system(within):
            continue
        if file.suffix.lower() in IMAGES:
            yield index, dict(zip(columns, (str(file.absolute()), within.parts[0]), strict=True))
        else:
            yield index, f"{file.absolute()}: not an image file ({', '.join(IMAGES)})"


def read_text(path: Path, column: str, layout: Layout | None = None) -> Iterator[Numbered]:
    """Yield `{column: line}` for each line of a text file that is not blank. `Raises:` as `read`."""
    layout = layout or look(path)
    for index, line in enumerate(textfile.lines(path, layout.encoding, layout.end)):
        if not line.strip():
            continue
        try:
            yield index, {column: line.decode("utf-8")}
        except UnicodeDecodeError as error:
            yield index, _not_utf8(line, error)


def _not_utf8(line: bytes, error: UnicodeDecodeError) -> str:
    return (
        f"byte 0x{line[error.start]:02x} at position {error.start + 1} is not UTF-8 (task.encoding names "
        f"another encoding)"
    )
