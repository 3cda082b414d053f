"""Where the rows and the vectors of each split are: a folder a split, or the tree of the source."""

from pathlib import Path
from typing import NamedTuple

from graftlab.data import readers
from graftlab.errors import DataError, Place, near_file

SPLITS = {"train": ("train",), "validation": ("validation", "val"), "test": ("test",)}
"""The splits, and what they may be called."""
ROWS, VECTORS = "rows.jsonl", "embeddings.safetensors"
"""The files of a split's folder as graftlab writes them."""
TEXTS = "texts.jsonl"
"""The file of a split's folder that has the text of each vector, where it is known."""
SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".parquet", ".csv")


class Files(NamedTuple):
    """The files of one split."""

    rows: Path
    vectors: Path


def find(folder: Path) -> dict[str, Files]:
    """Return the files of each split that is there.

    Raises:
        DataError: a file is missing, a split has two of a kind, or there is no train.
    """
    key = Place(key=("data_dir",))
    if not folder.is_dir():
        said = f"task.data_dir: there is no folder {folder} (in {Path.cwd()}).{near_file(folder)}"
        raise DataError(said, place=key, kind="missing")
    found = {split: _split(folder, names) for split, names in SPLITS.items()}
    there = {split: files for split, files in found.items() if files}
    if "train" not in there:
        held = ", ".join(sorted(path.name for path in folder.iterdir())[:20]) or "nothing"
        raise DataError(
            f"{folder} has no train/{VECTORS} with train/{ROWS} (or embeddings/train_{VECTORS} with "
            f"synthesis/train_synthesis.jsonl). It holds: {held}.",
            place=key,
            kind="missing",
        )
    return there


def beside(rows: Path) -> Path:
    """Return the file of the vectors that the rows of a file name: in its folder, or in the source's tree.

    Raises:
        DataError: there is none.
    """
    stem = rows.name.partition(".")[0]
    split = stem.removesuffix("_synthesis")
    folder, name = rows.parent, VECTORS
    if split != stem:
        folder, name = rows.parent.parent / "embeddings", f"{split}_{VECTORS}"
    wanted = folder / name
    found = [path for path in (wanted, wanted.with_suffix(".npy")) if path.is_file()]
    if not found:
        said = f"{rows} names vectors by number, and there is no {wanted} that has them."
        raise DataError(said, kind="missing")
    return found[0]


def _split(folder: Path, names: tuple[str, ...]) -> Files | None:
    rows = [
        path
        for name in names
        for suffix in SUFFIXES
        for path in (
            *(folder / name / f"{kind}{suffix}" for kind in ("rows", "synthesis")),
            folder / "synthesis" / f"{name}_synthesis{suffix}",
        )
    ]
    vectors = [
        path
        for name in names
        for suffix in (".safetensors", ".npy")
        for path in (
            folder / name / f"embeddings{suffix}",
            folder / "embeddings" / f"{name}_embeddings{suffix}",
        )
    ]
    held = [[path for path in paths if path.is_file()] for paths in (rows, vectors)]
    for paths in held:
        if len(paths) > 1:
            named = ", ".join(str(path.relative_to(folder)) for path in paths)
            raise DataError(f"{folder} has more than one {names[0]}: {named}. Keep one.")
    if not any(held):
        return None
    if not all(held):
        there, lacking = (held[0] or held[1])[0], VECTORS if held[0] else ROWS
        raise DataError(
            f"{there} is there, and not what belongs to it: {there.parent.name}/{lacking}, or that of "
            f"the other tree.",
            place=Place(key=("data_dir",)),
            kind="missing",
        )
    assert readers.suffix_of(held[0][0])
    return Files(held[0][0], held[1][0])
