"""The figures of a selection: computed by `data`, then drawn, each as PNG and SVG."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from graftlab.rundir import files

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from graftlab.selection.results import Scored
    from graftlab.selection.survey import Examples

    Array = NDArray[Any]

# Shapes: L layers, S scores, C components, N examples.

SHOWN = 6  # layers of the scatter, at most: the source's number
DOTS_PER_INCH = 150
WIDEST = 14.0  # inches
MIXED = "score"


class Plots(NamedTuple):
    """What is drawn."""

    layers: "Array"  # (L,)
    chosen: int
    scores: "dict[str, tuple[Array, Array]]"
    """Score -> its values (L,) and half the width of their intervals (L,); NaN where undefined. The mixed
    one, depth taken into account, is `score`."""
    counting: tuple[str, ...]
    """Scores that are part of the mix."""
    correlations: "Array"  # (L, C)
    planes: "dict[int, Array]"
    """Layer -> (N, 2) the examples on its first two components."""
    labels: "Array"  # (N,)
    classes: tuple[str, ...]


def data(scored: "Scored", examples: "Examples", counting: Sequence[str]) -> Plots:
    """Return the arrays behind the figures."""
    import numpy as np

    choice, layers = scored.choice, list(scored.layers)
    columns = max((len(row.correlations) for row in scored.rows), default=0)
    correlations_LC = np.full((len(layers), columns), np.nan)
    for number, row in enumerate(scored.rows):
        correlations_LC[number, : len(row.correlations)] = row.correlations
    planes = {row.layer: np.array(row.plane) for row in scored.rows if row.plane}
    return Plots(
        np.array(layers),
        choice.layer,
        {name: _band(found) for name, found in {MIXED: choice.combined, **scored.values}.items()},
        tuple(counting),
        correlations_LC,
        {
            layer: planes[layer]
            for layer in scattered(choice.layer, list(planes), _by_score(scored))
        },
        examples.labels,
        tuple(examples.classes),
    )


def _by_score(scored: "Scored") -> list[int]:
    """Return the layers that are in the choice, the best first."""
    import numpy as np

    first_L = scored.choice.combined[0]
    return [scored.layers[i] for i in np.argsort(-first_L) if np.isfinite(first_L[i])]


def _band(found_BL: "Array") -> "tuple[Array, Array]":
    import numpy as np

    if len(found_BL) < 3:
        return found_BL[0], np.full(found_BL.shape[1], np.nan)
    return found_BL[0], 1.96 * np.std(found_BL[1:], axis=0, ddof=1)


def scattered(chosen: int, layers: Sequence[int], by_score: Sequence[int]) -> list[int]:
    """Return the layers to scatter, in order: the chosen, first, middle and last, and the next best."""
    wanted = [chosen, layers[0], layers[len(layers) // 2], layers[-1], *by_score]
    kept = [layer for layer in dict.fromkeys(wanted) if layer in layers]
    return sorted(kept[:SHOWN])


def write(folder: Path, plots: Plots, title: str) -> list[Path]:
    """Write every figure into `folder` as PNG and SVG and return the PNGs."""
    import matplotlib

    written = []
    with matplotlib.rc_context({"svg.hashsalt": "graftlab", "svg.fonttype": "path"}):
        for name, draw in FIGURES.items():
            figure = draw(plots)
            figure.suptitle(f"{TITLES[name]} ({title})", fontsize=11, parse_math=False)
            for suffix, metadata in (("png", {}), ("svg", {"Date": None})):
                partial = folder / f"{name}.{suffix}{files.PARTIAL}"
                figure.savefig(partial, format=suffix, dpi=DOTS_PER_INCH, metadata=metadata)
                partial.replace(folder / f"{name}.{suffix}")
            written.append(folder / f"{name}.png")
    return written


def lines(plots: Plots) -> "Figure":
    """Each score over the layers, with 95 % intervals; the mixed one first."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5.6), layout="constrained")
    names = [
        MIXED,
        *plots.counting,
        *(n for n in plots.scores if n not in (MIXED, *plots.counting)),
    ]
    panels = figure.subplots(2, -(-len(names) // 2), sharex=True, squeeze=False).flat
    for name, axes in zip(names, panels, strict=False):
        values_L, half_L = plots.scores[name]
        colour = (
            "tab:red" if name == MIXED else "tab:blue" if name in plots.counting else "tab:gray"
        )
        axes.fill_between(
            plots.layers, values_L - half_L, values_L + half_L, color=colour, alpha=0.2, linewidth=0
        )
        axes.plot(plots.layers, values_L, color=colour, marker="o", markersize=4)
        axes.axvline(plots.chosen, color="black", linestyle=":", linewidth=1)
        only = "" if name == MIXED or name in plots.counting else ", not counted"
        axes.set_title(f"{'mixed score' if name == MIXED else name}{only}", fontsize=9)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.get_major_locator().set_params(integer=True)
    for axes in list(panels):
        axes.set_visible(False)
    figure.supxlabel("layer (dotted: the one chosen)")
    return figure


def heat(plots: Plots) -> "Figure":
    """Every score at every layer, each brought to 0..1 over the layers; the numbers are the scores."""
    import numpy as np
    from matplotlib.figure import Figure

    names = list(plots.scores)
    values_SL = np.array([plots.scores[name][0] for name in names])
    low_S1 = np.min(np.where(np.isfinite(values_SL), values_SL, np.inf), axis=1, keepdims=True)
    high_S1 = np.max(np.where(np.isfinite(values_SL), values_SL, -np.inf), axis=1, keepdims=True)
    range_S1 = np.where(high_S1 > low_S1, high_S1 - low_S1, 1.0)
    figure = Figure(figsize=(min(WIDEST, 3 + 0.6 * len(plots.layers)), 3.8), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(
        (values_SL - low_S1) / range_S1, aspect="auto", cmap="viridis", vmin=0, vmax=1
    )
    axes.set_yticks(range(len(names)), ["mixed score" if n == MIXED else n for n in names])
    _layer_ticks(axes, plots)
    if len(plots.layers) <= 16:
        for (row, column), value in np.ndenumerate(values_SL):
            share = (value - low_S1[row, 0]) / range_S1[row, 0]
            axes.text(
                column, row, "–" if value != value else f"{value:.3f}", ha="center", va="center",  # noqa: RUF001
                fontsize=7, color="black" if share > 0.6 else "white",
            )  # fmt: skip
    figure.colorbar(image, ax=axes, label="lowest to highest")
    return figure


def components(plots: Plots) -> "Figure":
    """How much of the label each principal component has, layer by layer."""
    import numpy as np
    from matplotlib.figure import Figure

    count = plots.correlations.shape[1]
    figure = Figure(figsize=(min(WIDEST, 3 + 0.45 * len(plots.layers)), 4.2), layout="constrained")
    axes = figure.subplots()
    top = np.nanmax(plots.correlations) if np.isfinite(plots.correlations).any() else 1.0
    image = axes.imshow(
        plots.correlations.T, aspect="auto", cmap="magma", vmin=0, vmax=max(top, 1e-9)
    )
    axes.set_yticks(range(count), [str(number + 1) for number in range(count)])
    axes.set_ylabel("principal component")
    _layer_ticks(axes, plots)
    figure.colorbar(image, ax=axes, label="|correlation| with the label it tells best")
    return figure


def scatter(plots: Plots) -> "Figure":
    """The examples on the first two components of some layers, coloured by class."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    count = max(len(plots.planes), 1)
    columns = min(count, 3)
    rows = -(-count // columns)
    figure = Figure(figsize=(3.6 * columns + 1.4, 3.3 * rows + 0.4), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for (layer, plane_N2), axes in zip(plots.planes.items(), panels, strict=False):
        for c, name in enumerate(plots.classes):
            own_N2 = plane_N2[plots.labels == c]
            axes.scatter(
                own_N2[:, 0], own_N2[:, 1], s=9, alpha=0.65, linewidths=0,
                color=colormaps["tab10"](c % 10), marker="os^D"[c // 10 % 4], label=name,
            )  # fmt: skip
        axes.set_title(
            f"layer {layer}" + (" (chosen)" if layer == plots.chosen else ""), fontsize=10
        )
        axes.set_xticks([])
        axes.set_yticks([])
    for axes in list(panels):
        axes.set_visible(False)
    if plots.planes:
        handles, labels = figure.axes[0].get_legend_handles_labels()
        legend = figure.legend(handles, labels, loc="outside right upper", frameon=False)
        for text in legend.get_texts():
            text.set_parse_math(False)  # a name with two dollar signs is no formula
    return figure


def _layer_ticks(axes: Any, plots: Plots) -> None:
    every = -(-len(plots.layers) // 24)
    shown = range(0, len(plots.layers), every)
    axes.set_xticks(shown, [str(plots.layers[i]) for i in shown])
    for label, number in zip(axes.get_xticklabels(), shown, strict=True):
        if plots.layers[number] == plots.chosen:
            label.set_fontweight("bold")
    axes.set_xlabel(f"layer (layer {plots.chosen} is chosen)")


FIGURES: "Mapping[str, Callable[[Plots], Figure]]" = {
    "layer_scores": lines,
    "layer_scores_heatmap": heat,
    "component_correlations": components,
    "pca_scatter": scatter,
}
TITLES = {
    "layer_scores": "Scores by layer, with 95 % intervals",
    "layer_scores_heatmap": "Scores by layer",
    "component_correlations": "Components and label",
    "pca_scatter": "First two principal components",
}
