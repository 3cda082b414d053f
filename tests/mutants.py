"""Faults put into the core on purpose, one at a time, and whether the tests notice: `make mutants`.

    python tests/mutants.py [--sample 600] [--only graftlab/metrics] [--children 2]

mutmut makes the mutants and tries them in mutants/, a copy of the clone, where what became of each stays. A
mutant of the loop takes seconds, so that of those a sample is drawn. Writes the table of docs/mutants.md,
which says what is left out and why, and the survivors into build/mutants.txt.
"""

import argparse
import ast
import json
import math
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "mutants.md"
COPY = ROOT / "mutants"
STATS = COPY / "mutmut-stats.json"
SEVERAL = ("tests/training/test_processes.py", "tests/training/test_sharded.py")
"""Slow, and in processes of their own, where mutmut does not see which code a test reaches."""
TRAINING = "graftlab.training."
PARALLEL = "graftlab.training.parallel."
CAUGHT = {"killed", "timeout", "segfault"}
SENTENCE = re.compile(r"[a-z]\W* \W*[a-z]", re.IGNORECASE)


class Part(NamedTuple):
    """A part of the core of which a score is said."""

    name: str
    files: list[Path]
    sample: int | None
    """How many of its mutants are drawn; None for all."""


def parts(sample: int) -> list[Part]:
    package = ROOT / "graftlab"
    parallel = sorted((package / "training" / "parallel").glob("*.py"))
    return [
        Part("graftlab/metrics", sorted((package / "metrics").glob("*.py")), None),
        Part("graftlab/data/splits.py", [package / "data" / "splits.py"], None),
        Part("graftlab/training", sorted((package / "training").glob("*.py")), sample),
        Part("graftlab/training/parallel", parallel, sample // 6),
    ]


def mutants_of(path: Path) -> list[str]:
    """Return the names of a file's mutants, but for those that change nothing but sentences."""
    from mutmut.mutation.file_mutation import mutate_file_contents

    name = path.relative_to(ROOT)
    made = mutate_file_contents(str(name), path.read_text(encoding="utf-8"))
    functions = {
        node.name: without_sentences(node)
        for node in ast.walk(ast.parse(made.code))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    module = ".".join(name.with_suffix("").parts).removesuffix(".__init__")
    return [
        f"{module}.{mutant}"
        for mutant in made.mutant_names
        if functions[mutant] != functions[re.sub(r"\d+$", "orig", mutant)]
    ]


def without_sentences(function: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """Return a function's code without its name and without texts of two words or more."""
    for node in ast.walk(function):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            node.value = "" if SENTENCE.search(node.value) else node.value
    return "".join(map(ast.dump, [function.args, *function.body]))


# Trying them.


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """As a plugin: leave out slow tests but those of several processes, and let the quickest go first."""
    slow = [i for i in items if i.get_closest_marker("slow") and i.path.name not in str(SEVERAL)]
    config.hook.pytest_deselected(items=slow)
    took = json.loads(STATS.read_text())["duration_by_test"] if STATS.exists() else {}
    items[:] = [item for item in items if item not in slow]
    items.sort(key=lambda item: took.get(item.nodeid, 0.0))


def mutmut(names: list[str], children: int) -> None:
    """Have mutmut try some mutants; what processes that tests start import is the copy, too."""
    COPY.mkdir(
        exist_ok=True
    )  # a folder that is not there when Python starts is not looked into later
    paths = [str(COPY), str(ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "mutmut", "run", "--max-children", str(children), *names]
    subprocess.run(command, cwd=ROOT, env=environment, check=True)


def reach_several() -> None:
    """Have the tests of several processes stand for the code that is only for these, and for what no other
    test of training reaches."""
    stats = json.loads(STATS.read_text(encoding="utf-8"))
    tests = {test for test in stats["duration_by_test"] if test.startswith(SEVERAL)}
    reached = stats["tests_by_mangled_function_name"]
    for function in stats["function_hashes"]:
        known = reached.get(function, [])
        if function.startswith(PARALLEL) or (function.startswith(TRAINING) and not known):
            reached[function] = sorted(tests.union(known))
    STATS.write_text(json.dumps(stats), encoding="utf-8")


def outcomes() -> dict[str, str]:
    """Return what became of each mutant that was tried, by its name."""
    from mutmut.stats import status_by_exit_code

    found = {}
    for path in COPY.rglob("*.py.meta"):
        codes = json.loads(path.read_text(encoding="utf-8"))["exit_code_by_key"]
        found |= {name: status_by_exit_code[code] for name, code in codes.items()}
    return found


# What is said of them.


def interval(caught: int, tried: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share (Wilson, Probable Inference, 1927)."""
    z, share = 1.96, caught / tried
    middle = (share + z**2 / (2 * tried)) / (1 + z**2 / tried)
    half = z * math.sqrt(share * (1 - share) / tried + (z / (2 * tried)) ** 2) / (1 + z**2 / tried)
    return middle - half, middle + half


def row(part: Part, num_mutants: int, tried: list[str], found: dict[str, str]) -> str:
    """Return a part's row of the table."""
    caught = sum(found[name] in CAUGHT for name in tried)
    score = f"{caught / len(tried):.1%}"
    if len(tried) < num_mutants:
        low, high = interval(caught, len(tried))
        score += f" ({low:.1%} to {high:.1%})"
    return f"| `{part.name}` | {num_mutants:,} | {len(tried):,} | {caught:,} | {score} |"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument(
        "--sample", type=int, default=600, help="mutants of training/ that are drawn"
    )
    options.add_argument(
        "--only", default="", help="parts whose name begins so; the table stays as it is"
    )
    options.add_argument("--children", type=int, default=2)
    given = options.parse_args()
    asked = [part for part in parts(given.sample) if part.name.startswith(given.only)]
    everything = {part.name: [n for path in part.files for n in mutants_of(path)] for part in asked}
    drawn = {
        part.name: sorted(
            random.Random(0).sample(names, min(part.sample or len(names), len(names)))
        )
        for part in asked
        for names in [everything[part.name]]
    }
    if not STATS.exists():  # a first one, for which tests reach what
        mutmut([everything[asked[0].name][0]], given.children)
    reach_several()
    found = outcomes()
    if again := [n for names in drawn.values() for n in names if found.get(n) not in CAUGHT]:
        mutmut(again, given.children)
        found = outcomes()
    rows = [row(part, len(everything[part.name]), drawn[part.name], found) for part in asked]
    print("\n".join(rows))
    left = [f"{found[n]}: {n}" for names in drawn.values() for n in names if found[n] not in CAUGHT]
    (ROOT / "build").mkdir(exist_ok=True)
    (ROOT / "build" / "mutants.txt").write_text("\n".join(left) + "\n", encoding="utf-8")
    if not given.only:
        page = PAGE.read_text(encoding="utf-8")
        head = r"(<!-- mutants: begin[^>]*-->\n(?:.*\n){2}).*?(<!-- mutants: end -->)"
        lines = "".join(f"{line}\n" for line in rows)
        PAGE.write_text(re.sub(head, rf"\1{lines}\2", page, flags=re.S), encoding="utf-8")


if __name__ == "__main__":
    main()
