"""How fast instruction tuning is beside trl's SFTTrainer with PEFT, and beside the shortest loop.

python bench/sft_throughput.py [--model ../shared/models/small-llama] [--data-dir ../shared/data/gsm8k]
    [--synthetic] [--rows 240] [--rounds 7] [--threads 1 2] [--all] [--only LABEL ...]

At each number of threads a result of its own. About an hour on two cores; stopped, it goes on where it was.
"""

import argparse
import gzip
import json
import random
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from harness import Goal, in_turns, race
from sft_settings import HELD_OUT, Settings

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
CLAIM = (
    "graftlab fine-tunes a small Llama at least twice as fast as trl's SFTTrainer + PEFT, plain, with "
    "packing and with length grouping, to the same held-out loss, in at most 3 % more memory, and "
    "loses at most 2 % to a bare PyTorch loop on the same batches; its whole process, from start to "
    "exit, takes at most 0.8 of the time of trl's. LoRA on all linear layers, GSM8K, loss on the "
    "answers, float32; tokens/s without padding, over the training steps alone. Packing is for GPUs: "
    "here it is only measured."
)
OURS, BARE = "graftlab", "bare PyTorch loop on our batches"
TRL, TRL_PACKED = "trl + PEFT", "trl + PEFT, packing"
TRL_GROUPED = "trl + PEFT, group_by_length"
NAMES = {
    OURS: "graftlab",
    TRL: "trl",
    TRL_PACKED: "trl_packed",
    TRL_GROUPED: "trl_grouped",
    BARE: "bare_grouped",
}
MORE = {
    "bare PyTorch loop": "bare",
    "graftlab, packed": "graftlab_packed",
    "graftlab, padding_free": "graftlab_padding_free",
}
SPEED, MEMORY = "tokens/s", "peak memory (MiB)"
GOALS = [
    Goal(SPEED, OURS, TRL, at_least=2.0),
    Goal(SPEED, OURS, TRL_PACKED, at_least=2.0),
    Goal(SPEED, OURS, TRL_GROUPED, at_least=2.0),
    Goal(SPEED, OURS, BARE, at_least=0.98),
    Goal("held-out loss", OURS, TRL, at_most=1.01),
    Goal(MEMORY, OURS, TRL, at_most=1.03),
    Goal(MEMORY, OURS, TRL_PACKED, at_most=1.03),
    Goal("seconds", OURS, TRL_GROUPED, at_most=0.8),
    Goal("seconds", OURS, TRL, at_most=0.8),
    Goal("processors (s)", OURS, TRL_GROUPED),
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
    parser.add_argument("--rows", type=int, default=240)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--all", action="store_true", help="also those of which nothing is claimed")
    parser.add_argument("--only", nargs="+", choices=NAMES | MORE, help="show, and write nothing")
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
            for label, name in (NAMES | MORE if given.all or given.only else NAMES).items()
            if not given.only or label in given.only
        }
        public = {**settings.public(), "data": "GSM8K" if source else "sums in words"}
        if given.only:
            for threads in given.threads:
                turns = in_turns(contestants, given.rounds, threads, warm_up=False)
                print(json.dumps(turns, indent=1))
        else:
            race("sft_throughput", CLAIM, contestants, GOALS, public, given.rounds, given.threads)
