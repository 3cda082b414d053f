"""What a selection has found: selection.json, layer_scores.csv, a fragment of a run file, arrays to draw."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from graftlab import config as run_files
from graftlab.contracts import Selected
from graftlab.contracts.plot import MIXED
from graftlab.rundir import files
from graftlab.selection.choice import Choice, interval, statement
from graftlab.selection.examples import Examples
from graftlab.selection.request import Config

if TYPE_CHECKING:
    from graftlab.contracts.arrays import Floats


# Shapes: L layers, B rows: the scores, then their bootstrap samples; C components.

NAME, TABLE, FRAGMENT = "selection.json", "layer_scores.csv", "layer.yaml"


class Row(NamedTuple):
    """What is kept of a layer until all have been scored."""

    layer: int
    scores: dict[str, list[float] | None]
    """The score and its bootstrap samples; None where it is undefined."""
    reasons: dict[str, str]
    """Why, by score."""
    correlations: list[float]
    """Of each principal component with the label."""
    plane: list[list[float]]
    """Each example on the first two components."""


class Scored(NamedTuple):
    """All layers scored, and one chosen."""

    layers: Sequence[int]
    rows: Sequence[Row]
    values: "Mapping[str, Floats]"  # score -> (B, L)
    choice: Choice


def values(rows: Sequence[Row], name: str) -> "Floats":
    """Return (B, L) a score and its bootstrap samples at every layer, NaN where it is undefined."""
    import numpy as np

    columns = [row.scores[name] for row in rows]
    length = next((len(column) for column in columns if column), 1)
    found: Floats = np.array(
        [column or [np.nan] * length for column in columns], dtype=np.float64
    ).T
    return found


def write(folder: Path, selection: Mapping[str, object]) -> None:
    """Write everything into `folder`, selection.json last."""
    files.write_text(folder / TABLE, table(selection))
    files.write_text(folder / FRAGMENT, fragment(selection))
    files.write_json(folder / NAME, selection)


def selected(scored: Scored, config: Config, examples: Examples) -> Selected:
    """Return the arrays that plots of a selection draw from."""
    import numpy as np

    columns = max((len(row.correlations) for row in scored.rows), default=0)
    correlations_LC = np.full((len(scored.rows), columns), np.nan)
    for number, row in enumerate(scored.rows):
        correlations_LC[number, : len(row.correlations)] = row.correlations
    return Selected(
        np.array(scored.layers),
        scored.choice.layer,
        {MIXED: scored.choice.combined, **scored.values},
        tuple(name for name, weight in config.weights.items() if weight),
        correlations_LC,
        {row.layer: np.array(row.plane) for row in scored.rows if row.plane},
        examples.labels,
        tuple(examples.classes),
    )


def selection(scored: Scored, config: Config, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what selection.json holds."""
    choice = scored.choice
    layers = [_layer(scored, number) for number in range(len(scored.layers))]
    return {
        **facts,
        "n_samples": sum(facts["examples"].values()),
        "n_pcs": config.components,
        "top_pc": config.top_components,
        "effects": {str(layer["layer"]): layer["score"] for layer in layers},
        "best_llm_layer": choice.layer,
        "seed": config.seed,
        "statement": statement(choice, facts["num_layers"], len(scored.layers), config),
        "wins": {str(layer): share for layer, share in choice.wins.items()},
        "chosen_by_each_score_alone": choice.alone,
        "chosen_without_depth_bias": choice.unbiased,
        "left_out": list(choice.left_out),
        "without_vote": list(choice.silent),
        "undefined": {
            name: count
            for name in scored.values
            if (count := sum(row.scores[name] is None for row in scored.rows))
        },
        "layers": layers,
        "settings": config.model_dump(mode="json"),
    }


def _layer(scored: Scored, number: int) -> dict[str, object]:
    row, combined_B = scored.rows[number], scored.choice.combined[:, number]
    return {
        "layer": row.layer,
        "score": _number(combined_B),
        "interval": interval(combined_B),
        "scores": {
            name: {
                "value": _number(found_BL[:, number]),
                "interval": interval(found_BL[:, number]),
                "undefined": row.reasons.get(name),
            }
            for name, found_BL in scored.values.items()
        },
    }


def _number(values_B: "Floats") -> float | None:
    return None if values_B[0] != values_B[0] else float(values_B[0])


def table(selection: Mapping[str, Any]) -> str:
    """Return the scores as CSV, one row a layer: first the source's columns, then the others, then the
    ends of the intervals; an undefined score is an empty field."""
    names = list(selection["layers"][0]["scores"])
    source = ["probe", "fisher", "silhouette"]
    order = [name for name in source if name in names] + [n for n in names if n not in source]
    stream = io.StringIO()
    out = csv.writer(stream, lineterminator="\n")
    ends = [f"{name}_{end}" for name in ["score", *order] for end in ("low", "high")]
    out.writerow(["layer", *order[:3], "score", *order[3:], *ends])
    for layer in selection["layers"]:
        found = layer["scores"]
        columns = [found[name]["value"] for name in order]
        pairs = [layer["interval"], *(found[name]["interval"] for name in order)]
        limits = [end for pair in pairs for end in pair or (None, None)]
        out.writerow([layer["layer"], *columns[:3], layer["score"], *columns[3:], *limits])
    return stream.getvalue()


def fragment(selection: Mapping[str, object]) -> str:
    """Return what a run file says to use the layer."""
    said = f"# {selection['statement']}\n"
    use = "# With a line `extends: THE RUN FILE` this is a run file that uses it.\n"
    return said + use + run_files.dump({"method": {"layer": selection["best_llm_layer"]}})
