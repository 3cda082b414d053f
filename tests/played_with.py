"""A folder with runs that are finished, stopped, damaged or without their data, and files that fit none."""

import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from finished_runs import finish, make_data
from written_runs import finish_writer

import graftlab
from graftlab import config
from graftlab.errors import Stopped
from graftlab.training.step import Stepper

TINY = {"model": "tiny", "kind": "tiny", "width": 16, "layers": 1, "max_length": 96}
LORA = {"name": "lora", "rank": 2}
SEARCH = {
    "base": "classes.yaml",
    "space": {"training.learning_rate": {"float": [1e-4, 1e-2], "log": True}},
    "trials": 2,
}


def make(folder: Path) -> None:
    """Write everything into an empty folder."""
    finish(folder, LORA, name="classes")  # makes `bert` and `data`
    finish(folder, {"name": "bitfit"}, name="bitfit")
    finish_writer(folder, "texts")
    finish_writer(folder, "chat", template="chat")
    prefix = {"name": "prefix", "num_tokens": 2}
    writer = folder / "data-texts"
    texts = config.read(folder / "texts.yaml").values["task"]
    finish(folder, prefix, name="prefix", backbone=TINY, task={**texts, "files": _files(writer)})
    _mixed(folder)
    _stopped(folder, "unfinished")
    _without_data(folder)
    _damaged(folder)
    (folder / "search.yaml").write_text(config.dump(SEARCH))
    for name, text in FILES.items():
        (folder / name).write_bytes(text)


FILES = {
    "empty.csv": b"",
    "header.csv": b"text\n",
    "other.csv": b"sentence,score\na fine day,1\na poor day,0\n",
    "broken.jsonl": b'{"text": "a"}\n{"text": \n',
    "latin.jsonl": '{"text": "größe"}\n'.encode("latin-1"),
}


def _files(folder: Path) -> dict[str, str]:
    return {split: str(folder / f"{split}.jsonl") for split in ("train", "validation", "test")}


def _mixed(folder: Path) -> None:
    """Carry out a run of two tasks."""
    own = config.read(folder / "classes.yaml").values
    files = own["task"]["files"]
    tasks = [{"kind": "classification", "as": name, "files": files} for name in ("mood", "tone")]
    mixture = {"kind": "mixture", "tasks": tasks}
    path = folder / "mixed.yaml"
    path.write_text(config.dump({**own, "name": "mixed", "backbone": TINY, "task": mixture}))
    graftlab.run(path)


def _stopped(folder: Path, name: str) -> None:
    """Carry out a run that is stopped after the third of its four steps, with checkpoints."""
    real = Stepper.step

    def stopping(self: Stepper, step: int, rate: float) -> Any:
        if step == 3:
            signal.raise_signal(signal.SIGTERM)
        return real(self, step, rate)

    with pytest.MonkeyPatch.context() as during:
        during.setattr(Stepper, "step", stopping)
        saved = {"max_steps": 4, "batch_size": 8, "save_every": 2}
        with pytest.raises(Stopped):
            finish(folder, LORA, name=name, backbone=TINY, training=saved)
    shutil.copytree(folder / "runs" / name, folder / "runs" / "edited")
    path = folder / "runs" / "edited" / "config.yaml"
    path.write_text(path.read_text().replace("learning_rate: 0.02", "learning_rate: 0.03"))


def _without_data(folder: Path) -> None:
    """Carry out two runs on data of their own, which are then gone or other."""
    for name in ("gone", "changed"):
        own = folder / f"data-{name}"
        finish(folder, LORA, name=name, backbone=TINY, task=make_data(own))
    shutil.rmtree(folder / "data-gone")
    test = folder / "data-changed" / "test.csv"
    test.write_text(test.read_text(encoding="utf-8").replace("poor", "bad"), encoding="utf-8")


def _damaged(folder: Path) -> None:
    """Leave a run with half of its adapter."""
    shutil.copytree(folder / "runs" / "classes", folder / "runs" / "damaged")
    path = folder / "runs" / "damaged" / "adapter" / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
