"""Whether graftlab reaches the test accuracy of transformers.Trainer with PEFT at the same settings.

python bench/sst2_parity.py [--data-dir ../shared/data/sst2] [--rounds 3] [--threads 1] [--epochs 3]

Both take the checkpoint that is best on validation, looked at once an epoch. Round k has seed k.
"""

from dataclasses import replace

from harness import Goal, race
from settings import arguments, command

CLAIM = (
    "At the same settings graftlab's test accuracy lies within one point of `transformers.Trainer` "
    "with PEFT (mean over the seeds). MiniLM, LoRA on query and value, SST-2; both report the "
    "checkpoint that was best on validation."
)
OURS, PEER = "graftlab", "Trainer + PEFT"
NAMES = {OURS: "graftlab", PEER: "trainer"}
GOALS = [
    Goal("test accuracy (%)", OURS, PEER, compare="difference", at_least=-1.0, at_most=1.0),
]

if __name__ == "__main__":
    settings, rounds, threads = arguments(__doc__, rounds=3, threads=[1], epochs=3)
    contestants = {
        label: lambda seed, name=name: command(name, replace(settings, seed=seed))
        for label, name in NAMES.items()
    }
    public = settings.public() | {"seed": f"0 to {rounds - 1}"}
    race("sst2_parity", CLAIM, contestants, GOALS, public, rounds, threads, warm_up=False)
