"""The rows that a run file trains on and scores, as a data set of the hub."""

import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path

from graftlab.contracts import Data
from graftlab.planning import preparation
from graftlab.planning import rows as kept
from graftlab.release.push.contents import CARD, Content
from graftlab.runfile import RunFile

log = logging.getLogger("graftlab")
DEFAULT = "default"
"""What the hub calls the rows of a data set that has but one kind of them."""


def gather(file: RunFile, data: Data, repo: str) -> dict[str, Content]:
    """Return the rows, one file a split (of a mixture one folder a task), and a card that names them.

    Raises:
        ConfigError: they stand in files of another form, or one is too long for a line.
        DataError: they cannot be read.
    """
    parts = preparation.of_tasks(file, data)
    origins = {name: _origin(*part) for name, part in parts.items()}
    where = dict.fromkeys(place for places in origins.values() for place in places)
    log.warning(
        "the rows are uploaded as they are (%s): whether you may publish them, their licence says",
        ", ".join(where),
    )
    found: dict[str, Content] = {}
    sizes: dict[str, dict[str, int]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, part in parts.items():
            rows = kept.raw_rows(*part)
            sizes[name] = {_file(name, split): len(chosen) for split, chosen in rows.items()}
            for split, chosen in rows.items():
                path = Path(folder) / "rows.jsonl.gz"
                kept.write_rows(path, chosen)
                found[_file(name, split)] = path.read_bytes()
    hub = sorted({hub_id for part in parts.values() if (hub_id := _hub(part[0])) is not None})
    found[CARD] = _card(file.name, repo, sizes, hub).encode()
    return found


def _file(task: str, split: str) -> str:
    return f"{task}/{split}.jsonl.gz" if task else f"{split}.jsonl.gz"


def _hub(file: RunFile) -> str | None:
    """Return the id of the data set that a task's rows are of, if they are of one."""
    hub = getattr(file.task.config, "hub", None)
    return str(hub.path) if hub else None


def _origin(file: RunFile, data: Data) -> list[str]:
    """Return where a task's rows are from."""
    hub = _hub(file)
    return [hub] if hub else [*data.record["source"].values()]


def _card(name: str, repo: str, sizes: Mapping[str, Mapping[str, int]], hub: list[str]) -> str:
    from huggingface_hub import DatasetCardData

    configs = [
        {
            "config_name": task or DEFAULT,
            "data_files": [{"split": _split(path), "path": path} for path in files],
        }
        for task, files in sizes.items()
    ]
    data = DatasetCardData(configs=configs, source_datasets=hub or None, tags=["graftlab"])
    listed = "\n".join(
        f"- {path.removesuffix('.jsonl.gz')}: {size:,} rows"
        for files in sizes.values()
        for path, size in files.items()
    )
    ids = ", ".join(hub)
    sets = "data set" if len(hub) == 1 else "data sets"
    origin = f"They are rows of the {sets} {ids}." if hub else "They are local files' rows."
    return (
        f"---\n{data.to_yaml()}\n---\n\n# {repo.rpartition('/')[2]}\n\n"
        f"The rows that the run {name} is trained and scored on, as graftlab splits them.\n"
        f"{origin} Their licence is that of their source.\n\n{listed}\n"
    )


def _split(path: str) -> str:
    return Path(path).name.removesuffix(".jsonl.gz")
