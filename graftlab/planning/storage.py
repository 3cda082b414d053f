"""What a run needs of disks and of the network, and what there is."""

import fnmatch
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from graftlab.contracts import Note
from graftlab.errors import DiskError
from graftlab.training import checkpoint
from graftlab.weights import hub
from graftlab.weights.pretrained import aliases, locate

if TYPE_CHECKING:
    from graftlab.runfile import RunFile

BESIDE = 2  # the best checkpoint, and the one that is being written (see checkpoint.check_room)


class Disk(TypedDict):
    """The disk that the run directory goes to."""

    folder: str
    checkpoint: int
    """Bytes of one."""
    needed: int
    """Bytes of all that are there at a time, with the one that is being written."""
    free: int
    refused: str | None
    """Why the run would stop before its first step; None where it would not."""


def disk(file: "RunFile", size: int, steps: int | None, out: Path | None) -> Disk:
    """Return what checkpoints need, and what their disk has."""
    training = file.training
    every = getattr(training, "keep_every", 0)
    stay = training.keep_checkpoints + (steps // every if every and steps else 0)
    wanted = (out or file.paths.runs / file.name).absolute()
    there = next(folder for folder in (wanted, *wanted.parents) if folder.is_dir())
    refused = None
    try:
        checkpoint.check_room(there, size, stay)
    except DiskError as error:
        refused = str(error)
    free = shutil.disk_usage(there).free
    return Disk(
        folder=str(there),
        checkpoint=size,
        needed=(stay + BESIDE) * size,
        free=free,
        refused=refused,
    )


class Download(NamedTuple):
    """Bytes that a run fetches first; None where the hub has not told."""

    weights: int | None
    data: int | None
    notes: tuple[Note, ...]


def download(file: "RunFile", data_are_here: bool) -> Download:
    """Return what is to be fetched: nothing for what lies on this machine."""
    notes: list[Note] = []
    weights = _weights(file.backbone.config, notes)
    data = 0 if data_are_here else _data(file.task.config, notes)
    return Download(weights, data, tuple(notes))


def _weights(config: Any, notes: list[Note]) -> int | None:
    if not hasattr(config, "revision"):
        return 0  # made on the spot
    located = locate(config.model, config.revision, weights=False)
    if _complete(located.folder):
        return 0
    if located.source == str(located.folder.absolute()):
        notes.append(Note.of("no_weights", folder=str(located.folder)))
        return None
    hub_id = aliases(config.model).get(config.model, {}).get("id") or config.model
    return _asked(notes, "model", hub_id, config.revision, hub.WEIGHTS)


def _complete(folder: Path) -> bool:
    """Return whether a folder holds the weights: a file, or all shards that the index names."""
    if (folder / hub.WEIGHTS[0]).is_file():
        return True
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return False
    shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    return all((folder / shard).is_file() for shard in shards)


def _data(config: Any, notes: list[Note]) -> int | None:
    parts = getattr(config, "parts", None)
    if parts:
        sizes = [_data(part.config, notes) for part in parts.values()]
        return None if None in sizes else sum(size or 0 for size in sizes)
    where = getattr(config, "hub", None)
    return _asked(notes, "dataset", where.path, where.revision, ("*",)) if where else 0


def _asked(
    notes: list[Note], kind: str, hub_id: str, revision: str | None, patterns: tuple[str, ...]
) -> int | None:
    """Return the bytes of the files of a repository, as the hub says."""
    import os

    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled  # type: ignore[attr-defined]

    ask = HfApi(token=os.environ.get("HF_TOKEN") or False).repo_info
    try:
        info: Any = ask(
            hub_id, revision=revision, repo_type=kind, timeout=hub.TIMEOUT, files_metadata=True
        )
    except (HTTPError, OfflineModeIsEnabled, OSError) as error:
        why = hub.explain(hub_id, revision, error)
        notes.append(Note.of("size_unknown", source=hub_id, reason=why))
        return None
    return sum(
        int(file.size or 0)
        for file in info.siblings or ()
        if any(fnmatch.fnmatch(file.rfilename, pattern) for pattern in patterns)
    )
