"""Loss, learning rate and gradient norm of a run over its steps; a gap is a value that was not finite."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from graftlab.contracts.plot import RUN
from graftlab.rundir.run import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from graftlab.contracts.arrays import Floats


# Shapes: K logged steps.

DRAWS_FROM = RUN
TITLE = "Training"
LOGGED = {"loss": "loss", "learning_rate": "learning rate", "gradient_norm": "gradient norm"}


class Dynamics(NamedTuple):
    """What is drawn."""

    steps: "Floats"  # (K,)
    values: "dict[str, Floats]"  # (K,) each, by what it is called
    validated: "Floats"  # (V,) steps
    losses: "Floats"  # (V,) on validation


def data(run: Path) -> Dynamics:
    """Return what a run has logged of its steps."""
    import numpy as np

    logged = Run(run).read_metrics()
    trained = [row for row in logged if "loss" in row]
    scored = [row for row in logged if "validation/loss" in row]

    def column(rows: list[dict[str, object]], key: str) -> "Floats":
        return np.array([row.get(key) for row in rows], dtype=float)

    return Dynamics(
        column(trained, "step"),
        {shown: column(trained, key) for key, shown in LOGGED.items()},
        column(scored, "step"),
        column(scored, "validation/loss"),
    )


def draw(found: Dynamics) -> "Figure":
    """Return one panel a figure, all over the same steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.4), layout="constrained")
    panels = figure.subplots(1, len(found.values))
    marker = "o" if len(found.steps) == 1 else ""
    for axes, (name, values_K) in zip(panels, found.values.items(), strict=True):
        axes.plot(found.steps, values_K, marker=marker, linewidth=1, label="train")
        if name == "loss" and len(found.validated):
            axes.plot(found.validated, found.losses, marker="o", markersize=3, label="validation")
            axes.legend(frameon=False)
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("optimizer steps")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    return figure
