"""What the hashes of an adapter add to `graftlab predict`: their share of the command's processor time.

A BERT of MiniLM's size with random weights and LoRA on all linear layers; one text is answered. The hashes
are those of a command: the adapter's files, its run's manifest, config.yaml and environment.json.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from harness import Goal, in_turns, write

CLAIM = "Hashes of an adapter and its run add under 2 % to `predict`, imports and loading included."
SHARE, HASHES = "share of predict", "hashes (ms)"
LABELS = {"rank 8": 8, "rank 64": 64}
GOALS = [Goal(SHARE, label, compare="value", at_most=0.02) for label in LABELS]
BERT = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536,
        "vocab_size": 261, "max_position_embeddings": 128}  # fmt: skip
TIMES = 20  # that the hashes are computed, to be timed at all


def make(folder: Path, rank: int) -> Path:
    """Carry out a run of one step, and return its folder."""
    import transformers

    import graftlab
    from graftlab import config
    from graftlab.backbones import tiny
    from graftlab.contracts import Problem

    folder.mkdir()
    transformers.BertModel(transformers.BertConfig(**BERT)).save_pretrained(folder / "bert")
    tokenizer = tiny.load(tiny.Config(), Problem("classes", ("a", "b")), 0).processor
    tokenizer.save_pretrained(folder / "bert")
    files = {split: str(folder / f"{split}.csv") for split in ("train", "validation", "test")}
    for split, path in files.items():
        rows = [f"{split} {number},{'ab'[number % 2]}" for number in range(8)]
        Path(path).write_text("\n".join(["text,label", *rows]) + "\n")
    file = folder / "run.yaml"
    file.write_text(config.dump({
        "backbone": {"model": str(folder / "bert")},
        "task": {"kind": "classification", "files": files},
        "method": {"name": "lora", "rank": rank, "targets": "all-linear"},
        "training": {"max_steps": 1, "batch_size": 4},
    }))  # fmt: skip
    return graftlab.run(file, out=folder / "run").path


def turn(path: Path) -> dict[str, float]:
    """Answer a text as the command does, and time what it hashes."""
    import graftlab
    from graftlab.rundir.run import Run

    graftlab.load(path, device="cpu").predict("a text")
    whole, run = time.process_time(), Run(path)
    for _ in range(TIMES):
        run.check(run.config.name)
        run.read_environment()
        run.check_adapter()
    hashes = (time.process_time() - whole) / TIMES
    return {SHARE: hashes / whole, HASHES: 1000 * hashes}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        commands = {}
        for label, rank in LABELS.items():
            path = make(Path(place) / label, rank)
            command = [sys.executable, __file__, "--turn", str(path)]
            commands[label] = lambda _, command=command: command
        turns = in_turns(commands, given.rounds, 1)
    write("adapter_hashes", CLAIM, turns, GOALS, {"model": "6 x 384", "threads": 1})


if __name__ == "__main__":
    if sys.argv[1:2] == ["--turn"]:
        print(json.dumps(turn(Path(sys.argv[2]))))
    else:
        main()
