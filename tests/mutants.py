"""Faults put into the core on purpose, one at a time, and whether the tests notice: `make mutants`.

    python tests/mutants.py [--part graftlab/metrics ...] [--sample 200] [--seed 1] [--children 1]

mutmut makes the mutants and tries them in mutants/, a copy of the clone, where what became of each stays:
begun again, it goes on. What survived is tried again where tests have changed. Each part that is asked for
gets its row in docs/mutants.md, which says what is left out and why; survivors stand in build/mutants.txt.
"""

import argparse
import ast
import hashlib
import json
import math
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from mutmut_plugin import COPY, PART, ROOT, STATS

PAGE = ROOT / "docs" / "mutants.md"
LEDGER = COPY / "tests.json"
"""The test files of the last run, each with its sum."""
CAUGHT = {"killed", "timeout", "segfault"}
SENTENCE = re.compile(r"[a-z]\W* \W*[a-z]", re.IGNORECASE)


class Part(NamedTuple):
    """A part of the core of which a score is said."""

    name: str
    files: list[Path]
    sample: int
    """How many of its mutants are drawn."""


def parts(sample: int) -> list[Part]:
    package = ROOT / "graftlab"
    parallel = sorted((package / "training" / "parallel").glob("*.py"))
    return [
        Part("graftlab/metrics", sorted((package / "metrics").glob("*.py")), sample),
        Part("graftlab/data/splits.py", [package / "data" / "splits.py"], sample),
        Part("graftlab/training", sorted((package / "training").glob("*.py")), sample),
        Part("graftlab/training/parallel", parallel, sample // 4),
    ]


class Mutant(NamedTuple):
    name: str
    code: str
    """The sum of the function that it changes."""


def mutants_of(path: Path) -> list[Mutant]:
    """Return a file's mutants, but for those that change nothing but sentences."""
    from mutmut.mutation.file_mutation import mutate_file_contents

    name = path.relative_to(ROOT)
    made = mutate_file_contents(str(name), path.read_text(encoding="utf-8"))
    functions = {
        node.name: without_sentences(node)
        for node in ast.walk(ast.parse(made.code))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    module = ".".join(name.with_suffix("").parts).removesuffix(".__init__")
    sums = made.hash_by_function_name
    return [
        Mutant(f"{module}.{mutant}", sums[re.sub(r"__mutmut_\d+$", "", mutant)])
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


def mutmut(part: str, names: list[str], children: int) -> None:
    """Have mutmut try some mutants; what processes that tests start import is the copy, too."""
    paths = [str(COPY), str(ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "OMP_NUM_THREADS": "1",
        PART: part,
    }
    command = [sys.executable, "-m", "mutmut", "run", "--max-children", str(children), *names]
    subprocess.run(command, cwd=ROOT, env=environment, check=True)


def metas() -> dict[Path, dict[str, Any]]:
    """Return mutmut's records, one for each file with mutants."""
    return {p: json.loads(p.read_text(encoding="utf-8")) for p in COPY.rglob("*.py.meta")}


def forget() -> None:
    """Where tests have changed, let it be found again what they reach, and what survived be tried again."""
    COPY.mkdir(exist_ok=True)  # one that is not there when Python starts is not looked into later
    paths = (ROOT / "tests").rglob("*.py")
    now = {str(p.relative_to(ROOT)): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}
    before = json.loads(LEDGER.read_text(encoding="utf-8")) if LEDGER.exists() else now
    if changed := tuple(f"{path}::" for path, text in now.items() if before.get(path) != text):
        if STATS.exists():
            stats = json.loads(STATS.read_text(encoding="utf-8"))
            took = stats["duration_by_test"].items()
            stats["duration_by_test"] = {t: s for t, s in took if not t.startswith(changed)}
            STATS.write_text(json.dumps(stats), encoding="utf-8")
        for path, meta in metas().items():
            codes = meta["exit_code_by_key"].items()
            meta["exit_code_by_key"] = {n: c if said(c) in CAUGHT else None for n, c in codes}
            path.write_text(json.dumps(meta), encoding="utf-8")
    LEDGER.write_text(json.dumps(now), encoding="utf-8")


def said(code: int | None) -> str:
    from mutmut.stats import status_by_exit_code

    return str(status_by_exit_code[code])


def outcomes(mutants: list[Mutant]) -> dict[str, str]:
    """Return what became of each of some mutants that was tried on this code, by its name."""
    code = dict(mutants)
    found = {}
    for path, meta in metas().items():
        module = ".".join(path.relative_to(COPY).parts).removesuffix(".py.meta")
        module = module.removesuffix(".__init__")
        sums = {f"{module}.{f}": text for f, text in meta["hash_by_function_name"].items()}
        for name, exit_code in meta["exit_code_by_key"].items():
            known = sums.get(re.sub(r"__mutmut_\d+$", "", name))
            if exit_code is not None and name in code and code[name] == known:
                found[name] = said(exit_code)
    return found


# What is said of them.


def interval(caught: int, tried: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share (Wilson, Probable Inference, 1927)."""
    z, share = 1.96, caught / tried
    middle = (share + z**2 / (2 * tried)) / (1 + z**2 / tried)
    half = z * math.sqrt(share * (1 - share) / tried + (z / (2 * tried)) ** 2) / (1 + z**2 / tried)
    return middle - half, middle + half


def row(part: Part, num_mutants: int, seed: int, tried: dict[str, str]) -> str:
    """Return a part's row of the table."""
    caught = sum(outcome in CAUGHT for outcome in tried.values())
    score, drawn = f"{caught / len(tried):.1%}", "all"
    if len(tried) < num_mutants:
        low, high = interval(caught, len(tried))
        score, drawn = f"{score} ({low:.1%} to {high:.1%})", f"seed {seed}"
    asked = ["git", "log", "-1", "--format=%cs"]
    day = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    return f"| `{part.name}` | {num_mutants:,} | {len(tried):,} ({drawn}) | {caught:,} | {score} | {day} |"


def write(part: Part, line: str) -> None:
    """Put a part's row in the place of the one before."""
    page = PAGE.read_text(encoding="utf-8")
    before = re.compile(rf"^\| `{re.escape(part.name)}` \|.*$", re.MULTILINE)
    if not before.search(page):
        page = page.replace("<!-- mutants: end -->", f"{line}\n<!-- mutants: end -->")
    PAGE.write_text(before.sub(line, page), encoding="utf-8")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    names = [part.name for part in parts(0)]
    options.add_argument(
        "--part", nargs="+", choices=names, default=names, help="these alone; all if none is said"
    )
    options.add_argument("--sample", type=int, default=200, help="how many of a part are drawn")
    options.add_argument("--seed", type=int, default=0, help="which")
    options.add_argument("--children", type=int, default=1, help="how many are tried at once")
    given = options.parse_args()
    left = []
    forget()
    for part in parts(given.sample):
        if part.name not in given.part:
            continue
        mutants = [mutant for path in part.files for mutant in mutants_of(path)]
        size = min(part.sample, len(mutants))
        drawn = random.Random(given.seed).sample(mutants, size)
        if again := [m.name for m in drawn if m.name not in outcomes(drawn)]:
            mutmut(part.name, sorted(again), given.children)
        tried = outcomes(drawn)
        assert len(tried) == size, "mutmut stopped before it had tried them all"
        line = row(part, len(mutants), given.seed, tried)
        print(line)
        write(part, line)
        left += sorted(f"{end}: {name}" for name, end in tried.items() if end not in CAUGHT)
        (ROOT / "build").mkdir(exist_ok=True)
        (ROOT / "build" / "mutants.txt").write_text("\n".join(left) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
