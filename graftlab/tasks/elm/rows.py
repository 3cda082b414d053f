"""Rows that stand for vectors: read under the names of the source or their aliases, and checked."""

from collections.abc import Mapping

from graftlab.config import Paths
from graftlab.contracts import Data, Problem, written
from graftlab.data import sources, splits
from graftlab.data.labels import Unusable
from graftlab.data.rows import Rows
from graftlab.data.vectors import scan
from graftlab.data.vectors.origin import differences
from graftlab.data.vectors.store import Vectors
from graftlab.errors import DataError
from graftlab.tasks.elm import prompts, tree
from graftlab.tasks.elm.fields import Config

ALIASES = {
    "task_type": ("task_type",),
    "vector": ("embedding_file_idx", "embedding_index"),
    "query": ("query", "input_prompt_template"),
    "response": ("response", "target_text"),
    "domain": ("domain", "random_domain"),
}
"""What a row says, and the names that it may have for it; the domain may stand in its `metadata` too."""


def said(row: Mapping[str, object], what: str) -> object:
    """Return what a row says under one of the names; None where it says nothing.

    Raises:
        Unusable: it says two different things.
    """
    about = row.get("metadata") if what == "domain" else None
    places = (row, about) if isinstance(about, Mapping) else (row,)
    found = [at[name] for at in places for name in ALIASES[what] if at.get(name) is not None]
    if any(value != found[0] for value in found[1:]):
        raise Unusable(f"it has two of {' and '.join(ALIASES[what])}, which differ: {found}")
    return found[0] if found else None


def text(row: Mapping[str, object], what: str) -> str | None:
    """Return a text that a row has; None where it has none. `Raises:` Unusable: it is empty, or no text."""
    value = said(row, what)
    if value is None:
        return None
    if not isinstance(value, str):
        raise Unusable(f"{what} {value!r:.60} is no text")
    if not value.strip():
        raise Unusable(f"its {what} is empty")
    return value


def asked(row: Mapping[str, object], config: Config) -> dict[str, object]:
    """Return a row's task type and what stands behind its vector. `Raises:` Unusable."""
    kind = text(row, "task_type")
    if kind is None:
        raise Unusable("it has no task_type")
    if config.prompts == "catalogue":
        return {
            "task_type": kind,
            "prompt": prompts.named(kind).prompt(text(row, "domain")),
        }
    if (query := text(row, "query")) is None:
        raise Unusable("it has no query, and task.prompts is rows")
    return {"task_type": kind, "prompt": query}


def place_of(row: Mapping[str, object], count: int) -> int:
    """Return which vector a row stands for. `Raises:` Unusable: none, two, or one that is not there."""
    place = said(row, "vector")
    if place is None:
        raise Unusable(f"it names no vector ({' or '.join(ALIASES['vector'])})")
    if isinstance(place, list | tuple):
        if len(place) != 1:
            raise Unusable(f"it names {len(place)} vectors, and one is wanted")
        [place] = place
    if not isinstance(place, int) or isinstance(place, bool):
        raise Unusable(f"{place!r:.60} is no number of a vector")
    if not 0 <= place < count:
        raise Unusable(f"it names vector {place}, and there are 0 to {count - 1}")
    return place


class Reader:
    """Turns a row of one split into what the task knows of it."""

    def __init__(self, config: Config, split: str, vectors: Vectors) -> None:
        self._config, self._split, self._vectors = config, split, vectors
        self._scan = scan.of(vectors)
        self._keys: dict[int, bytes] = {}

    def __call__(self, row: Mapping[str, object]) -> dict[str, object]:
        """Return the row. `Raises:` Unusable."""
        found, place = asked(row, self._config), place_of(row, len(self._vectors))
        if (fault := self._scan.fault(place)) is not None:
            raise Unusable(f"vector {place} {fault}")
        response = text(row, "response")
        if response is None and self._split == "train":
            raise Unusable("it has no response")
        fields = {"prompt": found["prompt"]} | ({"response": response} if response else {})
        return {
            "fields": fields,
            "task_type": found["task_type"],
            "vector": place,
            "file": self._split,
            "reference": response,
            "key": self._key(place),
        }

    def _key(self, place: int) -> bytes:
        """Return what rows of one source text share: its vector."""
        if place not in self._keys:
            self._keys[place] = splits.digest(self._vectors.take([place]).tobytes())
        return self._keys[place]


def opened(config: Config) -> dict[str, Vectors]:
    """Return each split's vectors, by the name that its rows know them by.

    Raises:
        DataError: a file is missing or damaged, or two of them cannot be compared.
    """
    assert config.data_dir is not None
    found = {split: Vectors(files.vectors) for split, files in tree.find(config.data_dir).items()}
    first = found["train"]
    for other in found.values():
        if other.width != first.width:
            raise DataError(
                f"{other.path} has vectors of {other.width} numbers, and {first.path} of {first.width}.",
                kind="conflict",
            )
        if first.origin and other.origin and (odd := differences(first.origin, other.origin)):
            named = ", ".join(f"{name} {one!r} and {two!r}" for name, (one, two) in odd.items())
            raise DataError(
                f"the vectors of {first.path} and {other.path} were made otherwise: {named}. Embed the "
                f"texts of all splits with one model and its same settings.",
                kind="conflict",
            )
    return found


def read(config: Config, paths: Paths) -> Data:
    """Return the rows of each split: `index`, `fields` (prompt and response), `task_type`, `vector` (which
    of those in `file`) and `label`, the response.

    Raises:
        DataError
    """
    assert config.data_dir is not None
    files, stores = tree.find(config.data_dir), opened(config)
    gathered = {}
    for split, vectors in stores.items():
        source = sources.open_file(config, files[split].rows, ("", ""))
        gathered[split] = sources.gather(source, (), "response", Reader(config, split, vectors))
    usable, skipped = sources.usable(gathered, config.skip_bad)
    # `prepare` stratifies by class where it carves a split: here all rows are of one
    rows = {
        split: Rows({**found.columns, "label": [0] * len(found)}) for split, found in usable.items()
    }
    hidden = {s for s, r in rows.items() if s != "train" and not any(r.columns["reference"])}
    used, record, keys = splits.prepare(rows, hidden, config)
    hashes = {split: scan.of(vectors).sha256 for split, vectors in stores.items()}
    record["fingerprint"] |= {"vectors": hashes}
    return Data(
        {split: _labelled(found) for split, found in used.items()},
        Problem("tokens"),
        {
            "source": {split: str(found.rows) for split, found in files.items()},
            "skipped": skipped,
            **record,
            "notes": written([]) + record["notes"],
        },
        keys,
    )


def _labelled(rows: Rows) -> Rows:
    columns = {name: values for name, values in rows.columns.items() if name != "label"}
    return Rows({("label" if name == "reference" else name): v for name, v in columns.items()})
