"""What is saved where tokens are kept: a task made ready with an empty folder, and with a full one.

python bench/token_cache.py [--data ../shared/data] [--rounds 5] [--threads 1]

Processor time of a fresh process from rows to the task; reading the rows is not in it. The empty
folder is filled in that time, as by the first run. MiniLM's tokenizer for classes, SmolLM2's for answers.
The folder of data has one for each set, as `task.data_dir` takes them.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from harness import Goal, in_turns, write

TASKS = {
    "imdb": {"backbone": {"model": "minilm"}, "task": {"name": "imdb", "max_length": 256}},
    "sst2": {"backbone": {"model": "minilm"}, "task": {"name": "sst2", "max_length": 64}},
    "gsm8k": {"backbone": {"model": "smollm2_135m"}, "task": {"name": "gsm8k", "max_length": 512}},
}
EMPTY, KEPT = "nothing kept", "kept"
SECONDS = "processors of the task (s)"
CLAIM = (
    "Texts become tokens once, whatever the number of runs: a later run maps the file of the first. Splits "
    "of less than a million characters are not kept; templates of prompts are filled all the same."
)


def measure(name: str, data: Path, cache: Path) -> dict[str, float]:
    """Return the processor time in which a task is made ready."""
    from graftlab import config, runfile
    from graftlab.data import kept_arrays
    from graftlab.runs import material

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.yaml"
        values = config.merge(
            TASKS[name],
            {"task": {"data_dir": str((data / name).absolute())}, "method": {"name": "lora"}},
        )
        path.write_text(json.dumps(values), encoding="utf-8")
        file = runfile.resolve(config.read(path))
    rows = material.read(file)
    model = material.backbone(file, rows.problem, meta=True)
    with kept_arrays.kept_in(cache):
        began = time.process_time()
        task = material.bind(file, rows, model)
        taken = time.process_time() - began
    assert task.size("train")
    return {SECONDS: taken}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--child", nargs=2, metavar=("TASK", "CACHE"))
    asked = parser.parse_args()
    if asked.child:
        name, cache = asked.child
        print(json.dumps(measure(name, asked.data, Path(cache))))
        sys.exit()
    with tempfile.TemporaryDirectory() as made:

        def command(task: str, kept: bool) -> list[str]:
            cache = f"{made}/{task}" if kept else tempfile.mkdtemp(dir=made)
            own = ["--data", str(asked.data.absolute()), "--child", task, cache]
            return [sys.executable, __file__, *own]

        for task in TASKS:  # fills what is kept
            in_turns({task: lambda _, task=task: command(task, True)}, 1, asked.threads)  # type: ignore[misc]
        contestants = {
            f"{task}, {way}": lambda _, task=task, way=way: command(task, way == KEPT)
            for task in TASKS
            for way in (EMPTY, KEPT)
        }
        turns = in_turns(contestants, asked.rounds, asked.threads)
    goals = [Goal(SECONDS, f"{task}, {EMPTY}", f"{task}, {KEPT}") for task in TASKS]
    found = {label: [{SECONDS: turn[SECONDS]} for turn in own] for label, own in turns.items()}
    write("token_cache", CLAIM, found, goals, {"threads": asked.threads})
