"""The rows that a run file trains on and scores, as a data set of the hub."""

import logging
import tempfile
from pathlib import Path

from graftlab.contracts import Data
from graftlab.planning import preparation
from graftlab.planning import rows as kept
from graftlab.release.push.contents import CARD, Content
from graftlab.runfile import RunFile

log = logging.getLogger("graftlab")


def gather(file: RunFile, data: Data, repo: str) -> dict[str, Content]:
    """Return the rows, one file a split, and a card that names them.

    Raises:
        ConfigError: they are a mixture's, or one is too long for a line.
        DataError: they cannot be read.
    """
    rows = kept.raw_rows(preparation.Prepared(file, data, data.record, {}, {}))
    hub = getattr(file.task.config, "hub", None)
    log.warning(
        "the rows are uploaded as they are (%s): whether you may publish them, their licence says",
        hub.path if hub else ", ".join(data.record["source"].values()),
    )
    found: dict[str, Content] = {}
    with tempfile.TemporaryDirectory() as folder:
        for split, chosen in rows.items():
            path = Path(folder) / f"{split}.jsonl.gz"
            kept.write_rows(path, chosen)
            found[path.name] = path.read_bytes()
    sizes = {split: len(chosen) for split, chosen in rows.items()}
    found[CARD] = _card(file.name, repo, sizes, hub.path if hub else None).encode()
    return found


def _card(name: str, repo: str, sizes: dict[str, int], hub_id: str | None) -> str:
    from huggingface_hub import DatasetCardData

    files = [{"split": split, "path": f"{split}.jsonl.gz"} for split in sizes]
    data = DatasetCardData(
        configs=[{"config_name": "default", "data_files": files}],
        source_datasets=[hub_id] if hub_id else None,
        tags=["graftlab"],
    )
    listed = "\n".join(f"- {split}: {size:,} rows" for split, size in sizes.items())
    origin = f"They are rows of the data set {hub_id}." if hub_id else "They are local files' rows."
    return (
        f"---\n{data.to_yaml()}\n---\n\n# {repo.rpartition('/')[2]}\n\n"
        f"The rows that the run {name} is trained and scored on, as graftlab splits them.\n"
        f"{origin} Their licence is that of their source.\n\n{listed}\n"
    )
