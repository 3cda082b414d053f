"""What every contestant is told, what it reads, and what it prints."""

import argparse
import gzip
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
Row = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    data_dir: str
    """Folder with train, validation and test.jsonl.gz: `sentence`, `label`."""
    train_rows: int = 0
    """Only the first rows of train; 0 for all."""
    epochs: int = 1
    batch_size: int = 32
    learning_rate: float = 1e-3
    rank: int = 8
    alpha: int = 16
    dropout: float = 0.1
    max_length: int = 128
    seed: int = 0

    def public(self) -> dict[str, Any]:
        """Return the settings without the folder, which is the machine's own affair."""
        return {key: value for key, value in asdict(self).items() if key != "data_dir"}


class Asked(NamedTuple):
    """What a script's command line says."""

    settings: Settings
    rounds: int
    threads: list[int]


def arguments(about: str, rounds: int, threads: Sequence[int], **defaults: Any) -> Asked:
    """Read a script's command line: the folder of SST-2, rounds, threads, and the size of the run."""
    parser = argparse.ArgumentParser(description=about.partition("\n")[0])
    parser.add_argument("--data-dir", type=Path, default=ROOT.parent / "shared" / "data" / "sst2")
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--threads", type=int, nargs="+", default=list(threads))
    parser.add_argument("--epochs", type=int, default=defaults.pop("epochs", 1))
    parser.add_argument("--train-rows", type=int, default=defaults.pop("train_rows", 0))
    given = parser.parse_args()
    if not (given.data_dir / "train.jsonl.gz").is_file():
        parser.error(f"{given.data_dir} has no train.jsonl.gz: name a folder with --data-dir")
    settings = Settings(
        str(given.data_dir.resolve()),
        train_rows=given.train_rows,
        epochs=given.epochs,
        **defaults,
    )
    return Asked(settings, given.rounds, given.threads)


def rows(settings: Settings, split: str) -> list[Row]:
    """Return a split's rows as the file has them."""
    with gzip.open(Path(settings.data_dir) / f"{split}.jsonl.gz", "rt", encoding="utf-8") as stream:
        lines = [json.loads(line) for line in stream]
    return lines[: settings.train_rows or None] if split == "train" else lines


def figures(
    speed: float, accuracy: float, checkpoints: list[tuple[float, int]]
) -> dict[str, float]:
    """Return what every contestant prints; `checkpoints` holds (seconds, bytes) of each."""
    found = {"examples/s": speed, "test accuracy (%)": 100 * accuracy}
    if checkpoints:
        seconds, size = zip(*checkpoints, strict=True)
        found["checkpoint (ms)"] = 1000 * statistics.median(seconds)
        found["checkpoint (KiB)"] = statistics.median(size) / 1024
    return found


def command(contestant: str, settings: Settings) -> list[str]:
    """Return the command that runs a contestant in a process of its own."""
    return [
        sys.executable,
        str(ROOT / "bench" / "contestants.py"),
        contestant,
        json.dumps(asdict(settings)),
    ]
