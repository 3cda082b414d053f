"""How fast instruction tuning is beside trl's SFTTrainer with PEFT, and beside the shortest loop.

python bench/sft_throughput.py [--model ../shared/models/small-llama] [--data-dir ../shared/data/gsm8k]
    [--synthetic] [--rows 600] [--rounds 3] [--threads 2] [--only LABEL ...]
"""

import argparse
import gzip
import json
import random
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from harness import Goal, in_turns, write
from sft_settings import HELD_OUT, Settings

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
CLAIM = (
    "graftlab fine-tunes a small Llama at least twice as fast as the faster of trl's SFTTrainer + PEFT with "
    "and without packing, to the same held-out loss, in at most 5 % more memory, and loses nothing to a bare "
    "PyTorch loop on the same batches. LoRA on all linear layers, GSM8K, loss on the answers, float32; "
    "tokens/s without padding, over the training steps alone. Packing is for GPUs: here it is only measured."
)
OURS, BARE = "graftlab", "bare PyTorch loop on our batches"
TRL, TRL_PACKED = "trl + PEFT", "trl + PEFT, packing"
NAMES = {
    OURS: "graftlab",
    TRL: "trl",
    TRL_PACKED: "trl_packed",
    "trl + PEFT, group_by_length": "trl_grouped",
    "bare PyTorch loop": "bare",
    BARE: "bare_grouped",
    "graftlab, packed": "graftlab_packed",
    "graftlab, padding_free": "graftlab_padding_free",
}
SPEED, MEMORY = "tokens/s", "peak memory (MiB)"
GOALS = [
    Goal(SPEED, OURS, TRL, at_least=2.0),
    Goal(SPEED, OURS, TRL_PACKED, at_least=2.0),
    Goal(SPEED, OURS, "trl + PEFT, group_by_length"),
    Goal(SPEED, OURS, BARE, at_least=0.97),
    Goal("held-out loss", OURS, TRL, at_most=1.01),
    Goal(MEMORY, OURS, TRL, at_most=1.05),
    Goal(MEMORY, OURS, TRL_PACKED, at_most=1.05),
]


def write_rows(folder: Path, source: Path | None, count: int, held_out: int = HELD_OUT) -> None:
    """Write train.jsonl and validation.jsonl: rows of GSM8K, or sums in words."""
    if source is not None:
        with gzip.open(source / "train.jsonl.gz", "rt", encoding="utf-8") as stream:
            rows = [json.loads(line) for line in stream][: count + held_out]
    else:
        rows = [_sum(random.Random(i)) for i in range(count + held_out)]
    for name, part in (("train", rows[:count]), ("validation", rows[count:])):
        text = "".join(json.dumps(row) + "\n" for row in part)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")


def _sum(drawn: random.Random) -> dict[str, str]:
    parts = [drawn.randint(2, 99) for _ in range(drawn.randint(2, 12))]
    bought = "".join(f"On day {i + 1} Mia buys {part} apples. " for i, part in enumerate(parts))
    steps, total = [], 0
    for part in parts:
        steps.append(f"{total} + {part} = {total + part} apples.")
        total += part
    answer = "\n".join([*steps, f"#### {total}"])
    return {"question": f"{bought}How many has she?", "answer": answer}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path, default=SHARED / "models" / "small-llama")
    parser.add_argument("--data-dir", type=Path, default=SHARED / "data" / "gsm8k")
    parser.add_argument("--synthetic", action="store_true", help="sums in words instead of GSM8K")
    parser.add_argument("--rows", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=NAMES, help="show these, and write nothing")
    given = parser.parse_args()
    if not (given.model / "config.json").is_file():
        parser.error(f"{given.model} is no model: name the folder of a Llama with --model")
    source = None if given.synthetic else given.data_dir
    if source and not (source / "train.jsonl.gz").is_file():
        parser.error(f"{source} has no train.jsonl.gz: name GSM8K with --data-dir, or --synthetic")
    with tempfile.TemporaryDirectory() as folder:
        write_rows(Path(folder), source, given.rows)
        settings = Settings(str(given.model.resolve()), folder, given.rows)
        script = str(ROOT / "bench" / "sft_contestants.py")
        contestants = {
            label: lambda _, name=name: [sys.executable, script, name, json.dumps(asdict(settings))]
            for label, name in NAMES.items()
            if not given.only or label in given.only
        }
        # no warm-up round: loading stands outside the clock
        turns = in_turns(contestants, given.rounds, given.threads, warm_up=False)
    if given.only:
        print(json.dumps(turns, indent=1))
    else:
        public = {**settings.public(), "threads": given.threads}
        public["data"] = "GSM8K" if source else "sums in words"
        write("sft_throughput", CLAIM, turns, GOALS, public)
