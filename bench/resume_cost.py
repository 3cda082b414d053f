"""What a checkpoint costs: seconds and bytes, beside transformers.Trainer's.

python bench/resume_cost.py [--data-dir ../shared/data/sst2] [--rounds 5] [--threads 2] [--epochs 10]

A checkpoint an epoch, of few rows; the median over a run's checkpoints is one round's figure. graftlab's
is hashed and brought to the disk (fsync) before the run goes on; the Trainer's is neither.
"""

from harness import Goal, in_turns, write
from settings import arguments, command

CLAIM = (
    "What a checkpoint costs that a run can go on from, bit for bit, after any crash: adapter, head, "
    "optimizer and position, hashed and on the disk. `transformers.Trainer` "
    "writes much the same without hashes and without waiting for the disk. MiniLM with LoRA and its head."
)
OURS, PEER = "graftlab", "Trainer + PEFT"
NAMES = {OURS: "graftlab", PEER: "trainer"}
FIGURES = ("checkpoint (ms)", "checkpoint (KiB)")
GOALS = [Goal(figure, OURS, PEER) for figure in FIGURES]

if __name__ == "__main__":
    settings, rounds, (threads, *_) = arguments(
        __doc__, rounds=5, threads=[2], epochs=10, train_rows=320
    )
    contestants = {
        label: lambda _, name=name: command(name, settings) for label, name in NAMES.items()
    }
    turns = in_turns(contestants, rounds, threads)
    kept = {label: [{f: turn[f] for f in FIGURES} for turn in turns[label]] for label in turns}
    write("resume_cost", CLAIM, kept, GOALS, settings.public() | {"threads": threads})
