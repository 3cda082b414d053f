"""Runs that have been carried out: four steps on a BERT of two layers, for what is done with a run."""

import csv
from pathlib import Path
from typing import Any

import torch
import transformers

import graftlab
from graftlab import config
from graftlab.backbones import tiny
from graftlab.config import merge
from graftlab.contracts import Problem
from graftlab.rundir.run import Run

SMALL = {
    "vocab_size": 261,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 96,
}
LABELS = ("bad", "good", "naïve")
WORDS = ("poor sad cold harsh", "fine glad warm kind", "well ah oh so")


def make_bert(folder: Path) -> Path:
    """Save a small random BERT with a tokenizer of bytes, as its authors would have."""
    torch.manual_seed(0)
    transformers.BertModel(transformers.BertConfig(**SMALL)).save_pretrained(folder)
    problem = Problem("classes", LABELS)
    tiny.load(tiny.Config(max_length=96), problem, seed=0).processor.save_pretrained(folder)
    return folder


def make_data(folder: Path) -> dict[str, Any]:
    """Write 24 train and 12 validation and test rows; return the fields that point at them."""
    folder.mkdir()
    files = {}
    for split, count in {"train": 24, "validation": 12, "test": 12}.items():
        files[split] = str(folder / f"{split}.csv")
        with (folder / f"{split}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label"])
            for index in range(count):
                words = WORDS[index % 3].split()[: 1 + index % 4]
                writer.writerow([f"{' '.join(words)} {split} {index}", LABELS[index % 3]])
    return {"kind": "classification", "files": files}


def finish(folder: Path, method: dict[str, Any], **changes: Any) -> Run:
    """Carry out a run of four steps in `folder`, where `bert` and `data` are made if they are not there."""
    bert = folder / "bert" if (folder / "bert").is_dir() else make_bert(folder / "bert")
    data = folder / "data"
    task = (
        {"kind": "classification", "files": {s: str(data / f"{s}.csv") for s in SPLITS}}
        if data.is_dir()
        else make_data(data)
    )
    values = {
        "name": changes.pop("name", method["name"]),
        "backbone": {"model": str(bert)},
        "task": task,
        "method": method,
        "training": {"max_steps": 4, "batch_size": 8, "learning_rate": 0.02},
        "paths": {"runs": str(folder / "runs")},
    }
    path = folder / f"{values['name']}.yaml"
    path.write_text(config.dump(merge(values, changes)), encoding="utf-8")
    return graftlab.run(path)


SPLITS = ("train", "validation", "test")
