"""Rows of a Hugging Face hub data set, and plain words for why they cannot be had."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from graftlab.data import expressions
from graftlab.data.expressions import Part
from graftlab.data.rows import Numbered
from graftlab.data.section import Hub
from graftlab.errors import ConfigError, DataError, GraftlabError, Refused


def load(hub: Hub, cache: Path) -> dict[str, tuple[str, Iterator[Numbered]]]:
    """Return name and rows of each split that the data set has; images stay encoded.

    Raises:
        DataError: it cannot be reached, is gated, or is damaged in the cache.
        Refused: it needs a loading script.
        ConfigError: it has no such configuration or split.
    """
    import datasets

    if Path(hub.path).exists():
        raise ConfigError(
            f"task.hub.path {hub.path!r} is also a local folder, and the library would read that. "
            f"Say `data_dir: ./{hub.path}` if you mean the folder; else start in another folder."
        )
    try:
        found = datasets.load_dataset(
            hub.path, hub.name, revision=hub.revision, cache_dir=str(cache)
        )
    except (
        Exception
    ) as error:  # each library in the chain has its own; `explain` raises the unknown
        raise explain(error, hub, cache) from error
    named, sizes = {}, {name: len(rows) for name, rows in found.items()}
    for ours in ("train", "validation", "test"):
        theirs = getattr(hub, ours)
        asked = ours == "train" or ours in hub.model_fields_set
        if theirs in found or (theirs is not None and asked):
            named[ours] = theirs, expressions.parts(theirs, sizes, f"task.hub.{ours}")
    expressions.refuse_overlap(named)
    return {ours: (theirs, _part_rows(found, parts)) for ours, (theirs, parts) in named.items()}


def _part_rows(found: Mapping[str, Any], parts: Sequence[Part]) -> Iterator[Numbered]:
    """Yield the rows of several parts, counted through."""
    index = 0
    for split, start, stop in parts:
        for _, row in _rows(found[split].select(range(start, stop))):
            yield index, row
            index += 1


def _rows(dataset: Any) -> Iterator[Numbered]:
    import datasets

    for name, feature in dataset.features.items():
        if isinstance(feature, datasets.Image):
            dataset = dataset.cast_column(name, datasets.Image(decode=False))
    index = 0
    for batch in dataset.with_format("arrow").iter(1024):
        for row in batch.to_pylist():
            yield index, row
            index += 1


LOCAL = "or keep its files in a folder and set task.data_dir"
BY_STATUS = {
    401: f"the hub does not know who asks (401). Is HF_TOKEN set and valid? {LOCAL.capitalize()}.",
    403: f"the hub refuses access (403). Has HF_TOKEN the right to it? {LOCAL.capitalize()}.",
    404: f"not on the hub (404), or private and HF_TOKEN is not set. Check the spelling, {LOCAL}.",
    429: f"the hub asks to wait (429, too many requests). Try again later, {LOCAL}.",
}
DAMAGED = {
    "DatasetGenerationError",
    "NonMatchingSplitsSizesError",
    "NonMatchingChecksumError",
    "ArrowInvalid",
}
ABSENT = {"DatasetNotFoundError", "RepositoryNotFoundError", "RevisionNotFoundError"}
UNREACHED = {"ConnectionError", "ConnectError", "LocalEntryNotFoundError", "Timeout"}


def explain(error: BaseException, hub: Hub, cache: Path) -> GraftlabError:
    """Return what a failure to load means for the user; an unknown one is raised again as it is."""
    chain = list(_chain(error))
    # By name: they come from datasets, huggingface_hub, httpx and fsspec, in several versions.
    kinds = {kind.__name__ for e in chain for kind in type(e).__mro__}
    text = " ".join(str(e) for e in chain)
    what = f"task.hub {hub.path}" + (f" at revision {hub.revision}" if hub.revision else "")
    if "scripts are no longer supported" in text:
        return Refused(
            f"{what} needs a loading script, and code of a data set is not run. Most such sets have "
            f"the same rows as Parquet: set task.hub.revision: refs/convert/parquet, {LOCAL}."
        )
    if "GatedRepoError" in kinds or "gated" in text.lower():
        return DataError(
            f"{what} is gated: accept its terms at https://huggingface.co/datasets/{hub.path} and "
            f"set HF_TOKEN, {LOCAL}."
        )
    if "BuilderConfig" in text or "Config name is missing" in text:
        return ConfigError(f"{what}: task.hub.name {hub.name!r}: {error}")
    if "OfflineModeIsEnabled" in kinds or "OfflineModeIsEnabled" in text:
        return DataError(
            f"{what} is not in the cache {cache}, and offline mode is on; go online, {LOCAL}."
        )
    if why := _reason(kinds, next((s for e in chain if (s := _status(e))), None), cache):
        return DataError(f"{what}: {why}")
    raise error


def _reason(kinds: set[str], status: int | None, cache: Path) -> str | None:
    if status is None and kinds & ABSENT:
        status = 404
    if status in BY_STATUS:
        return BY_STATUS[status]
    if status is not None and status >= 500:
        return f"the hub has a fault ({status}). Try again later, {LOCAL}."
    if kinds & DAMAGED:
        return (
            "what was downloaded is damaged or incomplete. Remove its folder under "
            f"{cache} and run again."
        )
    if kinds & UNREACHED:
        return (
            f"it is not in the cache {cache}, and the hub cannot be reached (no network, or its name "
            f"does not resolve); go online once, {LOCAL}."
        )
    if kinds & {"DataFilesNotFoundError", "EmptyDatasetError"}:
        return f"it holds no data files that can be read; {LOCAL}."
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _status(error: BaseException) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)
