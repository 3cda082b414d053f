"""How fast a training is beside transformers.Trainer with PEFT, and beside the shortest loop.

python bench/training_throughput.py [--data-dir ../shared/data/sst2] [--rounds 5] [--threads 2]
"""

from harness import Goal, in_turns, write
from settings import arguments, command

CLAIM = (
    "graftlab trains at least as fast as `transformers.Trainer` with PEFT and length grouping, 1.8 "
    "times as fast as it comes, and its loop costs at most 3 % over a bare PyTorch loop on the same "
    "batches, in at most 5 % more memory. MiniLM, LoRA on query and value, SST-2, float32; examples/s "
    "over the training steps alone."
)
OURS, BARE = "graftlab", "bare PyTorch loop on our batches"
PLAIN, GROUPED = "Trainer + PEFT", "Trainer + PEFT, group_by_length"
NAMES = {OURS: "graftlab", PLAIN: "trainer", GROUPED: "trainer_grouped", BARE: "bare"}
GOALS = [
    Goal("examples/s", OURS, GROUPED, at_least=1.0),
    Goal("examples/s", OURS, PLAIN, at_least=1.8),
    Goal("examples/s", OURS, BARE, at_least=0.97),
    Goal("peak memory (MiB)", OURS, GROUPED, at_most=1.05),
]

if __name__ == "__main__":
    settings, rounds, threads = arguments(__doc__, rounds=5)
    contestants = {
        label: lambda _, name=name: command(name, settings) for label, name in NAMES.items()
    }
    turns = in_turns(contestants, rounds, threads)
    write("training_throughput", CLAIM, turns, GOALS, settings.public() | {"threads": threads})
