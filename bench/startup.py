"""How long one waits for `graftlab --help` and for the check of a recipe, and whether torch is loaded.

python bench/startup.py [--rounds 15]
"""

import argparse
import subprocess
import sys
from pathlib import Path

from harness import Goal, in_turns, write

CLAIM = (
    "`graftlab --help` takes under half a second and does not import torch; the check of a recipe "
    "takes under two seconds. `import peft` is what a training script waits for before its first line."
)
RECIPE = Path(__file__).parents[1] / "graftlab" / "recipes" / "glue" / "sst2-lora.yaml"
HELP, CHECK = "graftlab --help", "graftlab check glue/sst2-lora.yaml"
GRAFTLAB = [sys.executable, "-m", "graftlab"]
COMMANDS = {
    HELP: [*GRAFTLAB, "--help"],
    CHECK: [*GRAFTLAB, "check", str(RECIPE)],
    "python -c 'import peft'": [sys.executable, "-c", "import peft"],
    "python -c pass": [sys.executable, "-c", "pass"],
}
GOALS = [
    Goal("seconds", HELP, compare="value", at_most=0.5),
    Goal("imports torch", HELP, compare="value", at_most=0),
    Goal("seconds", CHECK, compare="value", at_most=2.0),
]


def imports_torch(command: list[str]) -> bool:
    """Run a Python command once more and return whether it loads torch."""
    told = [command[0], "-X", "importtime", *command[1:]]
    trace = subprocess.run(told, capture_output=True, text=True, check=True).stderr
    return any(line.rpartition("|")[2].strip() == "torch" for line in trace.splitlines())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    turns = in_turns(
        {label: lambda _, command=command: command for label, command in COMMANDS.items()},  # type: ignore[misc]
        rounds,
        threads=1,
    )
    for label, command in COMMANDS.items():
        loaded = int(imports_torch(command))
        turns[label] = [turn | {"imports torch": loaded} for turn in turns[label]]
    write("startup", CLAIM, turns, GOALS, {"threads": 1})
