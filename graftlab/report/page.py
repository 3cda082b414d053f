"""A comparison as one HTML page that needs nothing beside itself: no network, no script.

Figures are inline SVG drawn by matplotlib, some tens of kilobytes each. An interactive library would
cost 4.8 MB before its first point, and show the reader nothing that the tables do not.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from graftlab import config, plots
from graftlab.contracts import Compared, Plot
from graftlab.errors import CheckpointError, ConfigError
from graftlab.rundir import files
from graftlab.rundir.run import Run

TEMPLATE = Path(__file__).with_name("page.html.j2")
HIDDEN = ("dirty_diff",)
"""What of a run's environment is too long for a page."""
APART = ("data", "backbone", "seed", "resumes", "origin", "found")
"""What of a run's environment belongs to the run and not to the machine."""
MOST_RUNS = 500
"""Runs whose settings are listed; a page has to open, and runs.csv has them all."""
MOST_CLASSES = 30  # of which a confusion matrix is drawn


def write(record: Mapping[str, Any], runs: Path, out: Path, figures: Mapping[str, Plot]) -> None:
    """Write comparison.html, and each of the plots as NAME.png and .svg (NAME-2.png, ... for a second task
    or backbone).

    `record` is a comparison as plain values, as in comparison.json; `runs` the folder of its runs.
    """
    groups = _groups(record)
    sound = {run["run"] for run in record["runs"] if _is_sound(Run(runs / run["run"]))}
    for number, group in enumerate(groups):
        compared = _compared(group, runs, sound)
        group["classes"] = _classes(group, runs, sound)
        for name, plot in figures.items():
            figure = plots.titled(
                plot.draw(plot.data(compared)), f"{plot.TITLE} ({group['title']})"
            )
            plots.write(figure, out, f"{name}-{number + 1}" if number else name)
            group["figures"].append({"svg": plots.svg(figure), "caption": _caption(plot)})
    files.write_text(out / "comparison.html", render(record, groups, runs, sound))


def _caption(plot: Plot) -> str:
    """Return what a plot's own docstring says."""
    return f"{plot.TITLE}. {' '.join((plot.__doc__ or '').split())}"


def _is_sound(run: Run) -> bool:
    """Return whether what is shown of a run can be read; if not, it is a hole with its cause."""
    try:
        run.check()
        run.read_metrics()
        if run.started:
            config.read_yaml(run.config)
        if run.environment.is_file():
            run.read_environment()
    except (CheckpointError, ConfigError):
        return False
    return True


def render(
    record: Mapping[str, Any], groups: Sequence[Mapping[str, object]], runs: Path, sound: Set[str]
) -> str:
    """Return the page; every value is escaped, but for the figures that are drawn here."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True,
                              lstrip_blocks=True)  # fmt: skip
    environment.filters |= {"score": score, "share": share, "svg": Markup, "setting": setting}
    folders = {run["run"]: runs / run["run"] for run in record["runs"] if run["run"] in sound}
    resolved = {
        name: dict(_flatten(config.read_yaml(Run(path).config)))
        for name, path in list(folders.items())[:MOST_RUNS]
        if Run(path).started
    }
    shared = _shared(resolved.values())
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        record=record,
        groups=groups,
        shared=shared,
        own={name: _own(values, shared) for name, values in resolved.items()},
        unlisted=max(0, len(folders) - MOST_RUNS),
        machine=_machine(folders.values()),
    )


def _groups(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of each task and backbone in the order of their ranks, with their points."""
    groups: dict[tuple[str, str], dict[str, Any]] = {}
    for row in record["rows"]:
        key = (row["task"], row["backbone"])
        title = f"{key[0]}, {key[1]}"
        group = groups.setdefault(key, {"title": title, "rows": [], "grid": {}, "figures": []})
        group["rows"].append({"ranked_by": "test", **row})
    for row in record["grid"]:
        group = groups[(row["task"], row["backbone"])]
        group["grid"].setdefault(row["method"], {})[setting(row)] = row
    for group in groups.values():
        group["rows"].sort(key=lambda row: (row["place"] is None, row["place"] or 0))
        group["metric"] = next((row["metric"] for row in group["rows"] if row["metric"]), "metric")
        group["settings"] = list(dict.fromkeys(s for own in group["grid"].values() for s in own))
        group["span"] = _place(group["rows"])
        group["classes"] = []
    return list(groups.values())


def _place(rows: Sequence[dict[str, Any]]) -> str:
    """Give each row its points in percent of the way from the group's lowest value to its highest, and
    return these two."""
    known = [value for row in rows for value in _score(row)["values"].values() if value is not None]
    low, high = min(known, default=0.0), max(known, default=1.0)

    def at(value: float) -> float:
        return round(100 * (value - low) / (high - low), 2) if high > low else 50.0

    for row in rows:
        ranked = row["score"] = _score(row)
        row["points"] = [at(value) for value in ranked["values"].values() if value is not None]
        row["middle"] = None if ranked["mean"] is None else at(ranked["mean"])
    return f"{low:.3f} to {high:.3f}" if known else ""


def _score(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the summary of the split by which a row is ranked."""
    found: Mapping[str, Any] = row[row["ranked_by"]]
    return found


def _classes(group: Mapping[str, Any], runs: Path, sound: Set[str]) -> list[dict[str, Any]]:
    """Return of each row what the run of its first seed has predicted by class, and the notes on it."""
    found = []
    for row in group["rows"]:
        folder = next(iter(row["runs"].values()), None)
        path = Run(runs / str(folder)).result
        if folder not in sound or not path.is_file():
            continue
        result = files.read_json(path)
        name = " ".join(filter(None, (row["method"], setting(row))))
        for report in result.get("classes", {}).get(row["ranked_by"], ()):
            found.append(
                {"name": name, "run": folder, "split": row["ranked_by"], **_matrix(report)}
            )
    return found


def _matrix(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return a report with its confusion matrix whole, of few classes; of many there is none."""
    names = [one["name"] for one in report["classes"]]
    counts = {(true, said): n for true, said, n in report["confusion"]}
    numbers = range(len(names) if len(names) <= MOST_CLASSES else 0)
    whole = [[counts.get((true, said), 0) for said in numbers] for true in numbers]
    return {"task": None, **report, "matrix": whole}


def _compared(group: Mapping[str, Any], runs: Path, sound: Set[str]) -> Compared:
    rows = group["rows"]
    paths = {
        " ".join(filter(None, (row["method"], setting(row)))): [
            runs / name for name in row["runs"].values() if name in sound
        ]
        for row in rows
    }  # fmt: skip
    metric = next((row["metric"] for row in rows if row["metric"]), "loss")
    return Compared(metric, paths, rows)


def score(summary: Mapping[str, object]) -> str:
    """Return mean ± standard deviation over seeds."""
    if summary["mean"] is None:
        return "-"
    deviation = summary["deviation"]
    return f"{summary['mean']:.4f}" + (f" ± {deviation:.4f}" if deviation is not None else "")


def share(value: float | None) -> str:
    """Return a share with four digits; of nothing a dash."""
    return "-" if value is None else f"{value:.4f}"


def setting(row: Mapping[str, Any]) -> str:
    """Return the values of what varies, with the last word of each key."""
    return ", ".join(f"{key.rpartition('.')[2]}={value}" for key, value in row["setting"].items())


def _flatten(values: Mapping[str, object], above: str = "") -> Iterable[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flatten(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", "null" if value is None else str(value)


def _shared(resolved: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Return the keys that have one value in all runs."""
    every = list(resolved)
    first = every[0] if every else {}
    return {k: v for k, v in first.items() if all(other.get(k) == v for other in every)}


def _own(values: Mapping[str, str], shared: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in values.items() if key not in shared and key != "name"}


def _machine(folders: Iterable[Path]) -> dict[str, list[tuple[str, int]]]:
    """Return where the runs were made: of each fact its values, and how many runs had them."""
    counted: dict[str, Counter[str]] = {}
    for folder in folders:
        path = Run(folder).environment
        if not path.is_file():
            continue
        found = {k: v for k, v in files.read_json(path).items() if k not in APART}
        for key, value in _flatten(found):
            if key.rpartition(".")[2] not in HIDDEN:
                counted.setdefault(key, Counter())[value] += 1
    return {key: values.most_common() for key, values in counted.items()}
