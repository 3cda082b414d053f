"""How often a comparison calls a difference where there is none: a method beside itself, simulated and real.

python bench/false_alarms.py [--replications 5000] [--real STUDY] [--splits 5000]

Simulated: 500 test examples with easiness of their own, answered by runs whose accuracy shifts with the seed,
by little (standard deviation .005) or by much (.03), with 3, 5 and 8 seeds; paired (half of the shift's
variance is of the seed, in both arms) or not. `itself` are two arms of one method; `other examples` are two
methods that are equally good, but on other examples: 3 in 10 have another easiness in the second, and each
replication draws examples anew. `real` are networks of scikit-learn on its digits, 120 seeds each, drawn
without replacement into two arms: after 60 images, where seeds differ much, and after 500. With --real so are
the runs of a study of one method at many seeds (bench/real_seeds.yaml). The headline is what studies report;
the others are shown beside it, of which the percentile bootstrap is not ours.

Power: the second arm is better by what, with the true spread, four studies of five should find.
"""

import argparse
import csv
import itertools
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from harness import Goal, write
from numpy.typing import NDArray

from graftlab.rundir.run import Run
from graftlab.runs import units
from graftlab.statistics import components, dominance, permutation, power, seeds
from graftlab.statistics.estimates import Estimate

# Shapes: S seeds, N examples, G groups of them.

CLAIM = (
    "At the 5 % level, a method compared with itself is called different from itself in 3 to 7 % of studies, "
    "whatever the number of seeds, their spread and their pairing, on simulated and on real runs; so are two "
    "methods that are equally good on other examples. A known difference is found as often as foreseen, to 5 "
    "points. Beside it: what the other procedures call."
)
LEVEL, NUM_EXAMPLES, NUM_GROUPS = 0.05, 500, 50
SPREADS = {"small spread": 0.005, "large spread": 0.03}
SEEDS = (3, 5, 8)
TRAINED_ON, NUM_TESTED, REAL_SEEDS = (60, 500), 1_000, 120
TAIL = 0.005
"""About what a p-value has to be below among ten comparisons, to be below .05 when corrected."""
RESAMPLED = 1_000
"""Replications of the slow procedures: bootstraps of each."""
Floats = NDArray[np.float64]
Arms = tuple[Floats, Floats]


class Cell(NamedTuple):
    """A kind of study."""

    null: str
    spread: str
    seeds: int
    paired: bool

    @property
    def label(self) -> str:
        pairing = "paired" if self.paired else "not paired"
        return f"{self.null}, {self.spread}, {self.seeds} seeds, {pairing}"


def easiness(draws: np.random.Generator, count: int) -> Floats:
    """Return how likely each example is answered right: about .83 in the mean, some hopeless, most easy."""
    return 1 / (1 + np.exp(-draws.normal(2.0, 1.5, count)))


def simulated(
    cell: Cell, draws: np.random.Generator, count: int, better: float = 0.0
) -> Iterator[Arms]:
    """Yield studies as (S, G) accuracies of both arms; the first is better by `better` throughout."""
    spread = SPREADS[cell.spread]
    share = 0.5**0.5 if cell.paired else 1.0  # the rest of the variance is the seed's own
    for _ in range(count):
        first = easiness(draws, NUM_EXAMPLES)
        second = first.copy()
        if cell.null == "other examples":
            other = draws.random(NUM_EXAMPLES) < 0.3
            second[other] = easiness(draws, int(other.sum()))
        shared = draws.normal(0, spread * share, cell.seeds) if cell.paired else 0.0
        arms = []
        for easy_N, gain in ((first, better), (second, 0.0)):
            shift_S = draws.normal(0, spread * share, cell.seeds) + shared + gain
            right = draws.random((cell.seeds, NUM_EXAMPLES)) < easy_N + shift_S[:, None]
            arms.append(right.reshape(cell.seeds, NUM_GROUPS, -1).mean(2))
        yield arms[0], arms[1]


def resampled(
    score_RG: Floats, cell: Cell, draws: np.random.Generator, count: int
) -> Iterator[Arms]:
    """Yield studies whose seeds are drawn from real runs, each run in one arm at most."""
    for _ in range(count):
        chosen = draws.permutation(len(score_RG))[: 2 * cell.seeds]
        yield score_RG[chosen[: cell.seeds]], score_RG[chosen[cell.seeds :]]


def headline(arms: Arms, paired: bool) -> float:
    """Return what studies report."""
    judge = components.paired if paired else components.unpaired
    p = judge(*arms).p
    return 1.0 if p is None else p


def over_seeds(arms: Arms, paired: bool) -> float:
    judge = seeds.paired if paired else seeds.unpaired
    p = judge(arms[0].mean(1), arms[1].mean(1)).p
    return 1.0 if p is None else p


def exchanged(arms: Arms, paired: bool) -> float:
    judge = permutation.paired if paired else permutation.unpaired
    return judge(arms[0].mean(1), arms[1].mean(1)).p


def almost_ordered(arms: Arms, _: bool) -> float:
    """Return 0 where the order is called at .2 in either direction (at the confidence .95), else 1."""
    one, two = arms[0].mean(1), arms[1].mean(1)
    orders = [dominance.almost_stochastic_order(a, b) for a, b in ((one, two), (two, one))]
    return float(min(order.epsilon_min for order in orders) >= 0.2)


def bootstrapped(arms: Arms, _: bool) -> float:
    """Return the p-value of the percentile bootstrap of pairs, which is no part of graftlab."""
    gap_S = arms[0].mean(1) - arms[1].mean(1)
    draws = np.random.default_rng(0)
    means = draws.choice(gap_S, (1_000, len(gap_S))).mean(1)
    return 2 * float(min((means <= 0).mean(), (means >= 0).mean()))


PROCEDURES: dict[str, Callable[[Arms, bool], float]] = {
    "headline": headline,
    "t over seeds": over_seeds,
    "exchange": exchanged,
    "almost stochastic order at .2": almost_ordered,
    "percentile bootstrap": bootstrapped,
}


def alarms(cell: Cell, studies: Iterator[Arms]) -> dict[str, float]:
    """Return in how many of 100 studies each procedure calls a difference."""
    found: dict[str, list[float]] = {}
    for number, arms in enumerate(studies):
        for name, judge in PROCEDURES.items():
            if number < RESAMPLED or judge in (headline, over_seeds):
                found.setdefault(name, []).append(judge(arms, cell.paired))
    called = {f"{name} (%)": share_below(LEVEL, own) for name, own in found.items()}
    return {**called, f"headline at {TAIL:.1%} (%)": share_below(TAIL, found["headline"])}


def share_below(level: float, p_values: list[float]) -> float:
    """Return how many of 100 p-values are below a level."""
    return 100 * sum(p < level for p in p_values) / len(p_values)


def found_as_foreseen(cell: Cell, count: int) -> dict[str, float]:
    """Return how often a known difference is found, and how often it should be."""
    draws = np.random.default_rng([5, cell.seeds, cell.paired])
    judge = components.paired if cell.paired else components.unpaired
    before = [judge(*arms) for arms in simulated(cell, draws, count // 4)]
    freedom = float(np.median([one.degrees_of_freedom for one in before]))  # Welch's is estimated
    spread = float(np.std([one.value for one in before]))
    better = power.smallest_visible(Estimate(0.0, spread**2, freedom))
    assert better is not None
    found = [judge(*arms) for arms in simulated(cell, draws, count, better)]
    # shares end at one, so that the gain is a little less than what was asked for, and so is the spread
    gain, error = (float(f([one.value for one in found])) for f in (np.mean, np.std))
    called = share_below(LEVEL, [1.0 if one.p is None else one.p for one in found])
    freedoms = np.quantile([one.degrees_of_freedom for one in found], (np.arange(20) + 0.5) / 20)
    foreseen = 100 * float(np.mean([power.power(gain, error, one) for one in freedoms]))
    return {
        "found (%)": called,
        "foreseen (%)": foreseen,
        "found less foreseen": called - foreseen,
        "difference": gain,
    }


def digits() -> dict[str, Floats]:
    """Return the test accuracies of small networks, by group of examples (R, G).

    A seed is a start and an order of batches, as in a run.
    """
    from sklearn.datasets import load_digits
    from sklearn.neural_network import MLPClassifier

    pixels, label = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(label))
    pixels, label = pixels[order] / 16, label[order]
    test = slice(len(label) - NUM_TESTED, None)
    found = {}
    for shown in TRAINED_ON:
        rows = []
        for seed in range(REAL_SEEDS):
            network = MLPClassifier((32,), max_iter=40, learning_rate_init=0.01, random_state=seed)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it says that 40 passes are not the end
                network.fit(pixels[:shown], label[:shown])
            right = network.predict(pixels[test]) == label[test]
            rows.append(right.reshape(NUM_GROUPS, -1).mean(1))
        found[f"digits after {shown} images"] = np.array(rows)
    return found


def of_study(study: Path) -> dict[str, Floats]:
    """Return the test accuracies of each task's finished runs, by group of examples (R, G)."""
    with (study / "runs.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["finished"] == "True"]
    tasks: dict[str, list[Floats]] = {}
    for row in rows:
        found = units.of_run(Run(study / "runs" / row["run"]), "test", "accuracy")
        assert not isinstance(found, str), found
        tasks.setdefault(row["task"], []).append(found.values)
    return {task: np.array(own) for task, own in tasks.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--replications", type=int, default=5_000)
    parser.add_argument("--real", type=Path, action="append", default=[])
    parser.add_argument("--splits", type=int, default=5_000)
    asked = parser.parse_args()
    turns: dict[str, list[dict[str, float]]] = {}
    goals = []

    def record(cell: Cell, studies: Iterator[Arms]) -> None:
        turns[cell.label] = [alarms(cell, studies)]
        goals.append(Goal("headline (%)", cell.label, None, "value", 3, 7))
        print(cell.label, turns[cell.label][0], flush=True)

    kinds = list(itertools.product(SPREADS, SEEDS, (True, False)))
    for null, kind in itertools.product(("itself", "other examples"), kinds):
        cell, draws = Cell(null, *kind), np.random.default_rng([len(null), len(goals)])
        record(cell, simulated(cell, draws, asked.replications))
    pools = digits() | {name: own for study in asked.real for name, own in of_study(study).items()}
    for name, score_RG in pools.items():
        spread = f"standard deviation {score_RG.mean(1).std(ddof=1):.3f}"
        for count, paired in itertools.product(SEEDS, (True, False)):
            cell, draws = Cell(f"real, {name}", spread, count, paired), np.random.default_rng(7)
            record(cell, resampled(score_RG, cell, draws, asked.splits))
    for kind in kinds:
        cell = Cell("a known difference", *kind)
        turns[cell.label] = [found_as_foreseen(cell, asked.replications)]
        print(cell.label, turns[cell.label][0], flush=True)
        goals.append(Goal("found less foreseen", cell.label, None, "value", -5, 5))
    settings = {
        "level": LEVEL, "examples": NUM_EXAMPLES, "groups": NUM_GROUPS,
        "replications": asked.replications, "splits": asked.splits, "threads": 1,
    }  # fmt: skip
    write("false_alarms", CLAIM, turns, goals, settings)


if __name__ == "__main__":
    main()
