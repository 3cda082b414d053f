"""How much accuracy is lost by the layer that a rule chooses, against the best layer there is.

python bench/layer_choice.py [--data ../shared/data] [--small ../shared/models/small-llama] [--seeds 8]
    [--pifi-seeds 4] [--sum-up]

A cell is a donor and a data set. Each rule chooses by 400 training examples, drawn anew by each seed. What
a layer is worth is measured threefold on 500 other rows of train: by a linear classifier fitted to 800, by
PiFi with a frozen encoder, and by PiFi as it is, both trained briefly on the 800. Stopped, it goes on where
it was; `--sum-up` makes the result of what there is.
"""

import argparse
import csv
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from harness import RESULTS, Goal, Journal, write
from layer_measures import (
    HELD,
    POOL,
    SAMPLES,
    Cell,
    is_read,
    read_layer,
    score,
    train,
    train_frozen,
)
from layer_rules import LAST, RANDOM, RULES, Sampled
from settings import ROOT

CLAIM = (
    "Points of accuracy that a layer chosen by a rule is below the best layer, over donors, data sets and "
    "samples of 400 examples: `linear`, the default of `layer: auto`, loses less than the last layer and "
    "than a random one, by a probe and by PiFi trained briefly over a frozen encoder."
)
DONORS, DATA = ("small-llama", "smollm2_135m"), ("trec", "sst2", "cr", "ag_news")
EVERY = {"small-llama": 1, "smollm2_135m": 8}  # of the layers; the last is tried as well
PROBE, FROZEN, AS_IT_IS = "by a probe", "by PiFi, encoder frozen", "by PiFi"
DEFAULT = "linear"
PAGE = ROOT / "docs" / "selection.md"
BEGIN = "<!-- layer choice: begin (made by bench/layer_choice.py) -->"
END = "<!-- layer choice: end -->"


def tried(cell: Cell) -> list[int]:
    """Return the layers of a cell."""
    count = cell.num_layers
    return sorted({*range(0, count, EVERY[cell.donor]), count - 1})


def measure(
    cells: list[Cell], seeds: int, pifi_seeds: int, journals: Mapping[str, Journal]
) -> None:
    """Score and train at all layers: what is cheap first, then PiFi as it is, seed by seed."""
    for cell in cells:
        layers, journal = tried(cell), journals[cell.donor]
        score(cell, seeds, layers)
        for layer in layers:
            label = _label(cell, False, layer)
            left = [seed for seed in range(pifi_seeds) if (label, seed) not in journal.done]
            if left:
                for seed, accuracy in zip(left, train_frozen(cell, layer, left), strict=True):
                    journal.keep(label, seed, {"accuracy": accuracy})
        print("scored", cell.donor, cell.data, flush=True)
    for seed in range(pifi_seeds):
        for cell in cells:
            journal = journals[cell.donor]
            for layer in tried(cell):
                label = _label(cell, True, layer)
                if (label, seed) not in journal.done:
                    journal.keep(label, seed, {"accuracy": train(cell, layer, seed)})
            print("trained", cell.donor, cell.data, seed, flush=True)


def _label(cell: Cell, full: bool, layer: int) -> str:
    return f"{cell.donor} {cell.data} {AS_IT_IS if full else FROZEN} {layer}"


def is_scored(cell: Cell) -> bool:
    return all(is_read(cell, layer) for layer in tried(cell))


def accuracies(cell: Cell, journal: Journal) -> dict[str, dict[int, list[float]]]:
    """Return by what a layer's worth was measured -> layer -> accuracies, of one seed or several."""
    found = {PROBE: {layer: [read_layer(cell, layer)["probe"]] for layer in tried(cell)}}
    for full, name in ((False, FROZEN), (True, AS_IT_IS)):
        by_layer: dict[int, list[float]] = {}
        for layer in tried(cell):
            label = _label(cell, full, layer)
            turns = [f["accuracy"] for (said, _), f in journal.done.items() if said == label]
            by_layer[layer] = turns
        whole = min(map(len, by_layer.values()))  # the seeds that all layers have
        if whole:
            found[name] = {layer: turns[:whole] for layer, turns in by_layer.items()}
    return found


def regrets(
    cell: Cell, seed: int, worth: Mapping[int, float]
) -> Iterator[tuple[str, int | None, float]]:
    """Yield each rule, the layer that it chooses among those of `worth`, and what that costs in points."""
    layers = sorted(worth)
    kept = [read_layer(cell, layer)["seeds"][seed] for layer in layers]
    scores = {
        space: {name: np.array([layer[space][name] for layer in kept]).T for name in kept[0][space]}
        for space in kept[0]
    }
    best = max(worth.values())
    yield RANDOM, None, 100 * (best - statistics.mean(worth.values()))
    for name, rule in RULES.items():
        layer = rule(Sampled(layers, cell.num_layers, scores))
        yield name, layer, 100 * (best - worth[layer])


def sum_up(cells: list[Cell], seeds: int, journals: Mapping[str, Journal]) -> None:
    """Write the result, what it is made of as two tables, and the table of the page."""
    turns: dict[str, list[dict[str, float]]] = {name: [] for name in (*RULES, RANDOM)}
    reached, chosen = [], []
    found = {cell: accuracies(cell, journals[cell.donor]) for cell in cells if is_scored(cell)}
    for cell, measured in found.items():
        reached += [
            (cell.donor, cell.data, name, layer, seed, f"{value:.4f}")
            for name, by_layer in measured.items()
            for layer, values in by_layer.items()
            for seed, value in enumerate(values)
        ]
    for seed in range(seeds):
        lost: dict[tuple[str, str], list[float]] = {}
        for cell, measured in found.items():
            for name, by_layer in measured.items():
                worth = {layer: statistics.mean(values) for layer, values in by_layer.items()}
                for rule, layer, points in regrets(cell, seed, worth):
                    lost.setdefault((rule, name), []).append(points)
                    chosen.append((cell.donor, cell.data, name, seed, rule, layer, f"{points:.2f}"))
        for rule, rows in turns.items():
            rows.append({n: statistics.mean(v) for (r, n), v in lost.items() if r == rule})
    _table("accuracies", ("donor", "data", "by", "layer", "seed", "accuracy"), reached)
    _table("chosen", ("donor", "data", "by", "seed", "rule", "layer", "regret"), chosen)
    goals = [
        Goal(name, DEFAULT, other, compare="difference", at_most=0.0)
        for name in turns[DEFAULT][0]
        for other in (LAST, RANDOM)
    ]
    settings = {
        "cells": ", ".join(f"{cell.donor} {cell.data}" for cell in found),
        "rows": POOL, "held out": HELD, "sample": SAMPLES,
        **{f"seeds {n}": _seeds(found, n) for n in (FROZEN, AS_IT_IS) if _seeds(found, n)},
        "threads": 1,
    }  # fmt: skip
    write("layer_choice", CLAIM, turns, goals, settings)
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, marked, after = rest.partition(END)
    assert marked, f"{PAGE} has lost its marks {BEGIN!r} and {END!r}"
    PAGE.write_text(f"{before}{BEGIN}\n\n{_shown(turns)}\n{END}{after}", encoding="utf-8")


def _seeds(found: Mapping[Cell, dict[str, dict[int, list[float]]]], name: str) -> str:
    """Return how many seeds PiFi was trained with in each cell."""
    counts = [len(next(iter(by[name].values()))) if name in by else 0 for by in found.values()]
    return ", ".join(map(str, counts)) if any(counts) else ""


def _shown(turns: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """Return the mean regrets as a table, the least by the first measure on top."""
    names = list(turns[LAST][0])
    means = {
        rule: [statistics.mean(row[name] for row in rows) for name in names]
        for rule, rows in turns.items()
    }
    lines = [f"| rule | {' | '.join(names)} |", "| --- |" + " --- |" * len(names)]
    for rule, found in sorted(means.items(), key=lambda item: sum(item[1])):
        lines.append(f"| {rule} | {' | '.join(f'{value:.2f}' for value in found)} |")
    return "\n".join(lines) + "\n"


def _table(name: str, head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    path = RESULTS / "layer-choice" / f"{name}.csv"
    path.parent.mkdir(exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([head, *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    shared = ROOT.parent / "shared"
    parser.add_argument("--data", type=Path, default=shared / "data")
    parser.add_argument("--small", type=Path, default=shared / "models" / "small-llama")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--pifi-seeds", type=int, default=4)
    parser.add_argument("--donors", nargs="+", default=DONORS)
    parser.add_argument("--sets", nargs="+", default=DATA)
    parser.add_argument("--sum-up", action="store_true")
    given = parser.parse_args()
    where = {"data": str(given.data.resolve()), "small-llama": str(given.small.resolve())}
    work = ROOT / "build" / "layer_choice"
    cells = [
        Cell(donor, data, work / f"{donor}-{data}", where)
        for donor in given.donors
        for data in given.sets
    ]
    journals = {name: Journal(work / f"{name}.partial", {"threads": 1}) for name in given.donors}
    if not given.sum_up:
        measure(cells, given.seeds, given.pifi_seeds, journals)
    sum_up(cells, given.seeds, journals)


if __name__ == "__main__":
    main()
