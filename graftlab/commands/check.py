"""Check a run file, a study or a search: keys, values, conflicts, names, files; nothing is loaded."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from graftlab.commands._options import File, Json, Overrides, aligned, emit

if TYPE_CHECKING:
    from graftlab.contracts import Note
    from graftlab.data.foreign_code import Call
    from graftlab.planning.outline import Outline
    from graftlab.runfile import RunFile
    from graftlab.search.space import Range


def command(
    file: File,
    overrides: Overrides = None,
    model: Annotated[
        bool,
        typer.Option(
            "--model", help="Also build the model, without its weights, and find targets."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Check a run file, a study or a search: keys, values, conflicts, names, files and columns.

    Everything that is wrong is listed at once. Local rows are read, and what is odd about them is said;
    no model is loaded, and nothing is downloaded or written. A function of another package that makes the
    rows is named, and not imported. Of a study every run is checked, of a search the base and the ends of
    its ranges.
    """
    from graftlab import config, runfile

    kind = runfile.several(config.read(file).values)
    shown = _run if kind is None else _search if kind == runfile.SEARCH else _study
    shown(file, overrides or (), model, as_json)


def _run(file: str, overrides: Sequence[str], model: bool, as_json: bool) -> None:
    from graftlab import config, runfile
    from graftlab.contracts import written

    run = runfile.resolve(config.read(file, overrides))
    notes, calls = _notes([run])
    found: dict[str, Any] = {"ok": True, "config": run.resolved}
    found["code"] = [call.as_json() for call in calls]
    rows = [*_summary(run), *_code(calls)]
    if model:
        built = _outline(run)
        notes += [built.note] if built.note else []
        found["model"] = built.as_json()
        rows += [(key, str(value)) for key, value in found["model"].items()]
    found["notes"] = written(notes)
    emit(found, as_json, _text(rows, notes, f"{file} can be run."))


def _study(file: str, overrides: Sequence[str], model: bool, as_json: bool) -> None:
    from graftlab import study
    from graftlab.contracts import written
    from graftlab.planning import budget
    from graftlab.search import tuned

    plan = study.read(file, overrides)
    searches = tuned.searches(plan) if plan.study.tune is not None else {}
    first = [run for run in plan.runs if run.seed == plan.seeds[0]]
    notes, calls = _notes([run.file for run in first])
    if model:
        for run in first:
            note = _outline(run.file).note
            notes += [note] if note and note not in notes else []
        if plan.study.budget is not None:
            wanted = plan.study.budget
            for group in [*plan.files_by_group(), *tuned.files_by_group(searches)]:
                budget.check(group, wanted.equal, wanted.within, plan.budget_place)
    settings = dict.fromkeys(
        " ".join(f"{key}={value}" for key, value in run.cell.setting) for run in first
    )
    rows = [
        ("name", plan.name),
        ("tasks", ", ".join(dict.fromkeys(run.cell.task for run in first))),
        ("backbones", ", ".join(dict.fromkeys(run.cell.backbone for run in first))),
        ("methods", ", ".join(dict.fromkeys(run.cell.method for run in first))),
        *([("settings", "; ".join(settings))] if len(settings) > 1 else []),
        *([("trials", f"{sum(map(tuned.count, searches.values()))} before")] if searches else []),
        ("seeds", ", ".join(map(str, plan.seeds))),
        *_code(calls),
    ]
    found = {
        "ok": True,
        "study": plan.name,
        "runs": [run.name for run in plan.runs],
        "code": [call.as_json() for call in calls],
        "notes": written(notes),
    }
    said = f"{file} can be compared: {len(plan.runs)} runs."
    emit(found, as_json, _text(rows, notes, said))


def _search(file: str, overrides: Sequence[str], model: bool, as_json: bool) -> None:
    from graftlab import search
    from graftlab.contracts import written
    from graftlab.search import tuned

    plan = search.read(file, overrides)
    notes, calls = _notes([plan.file])
    if model and (built := _outline(plan.file)).note:
        notes += [built.note]
    asked = plan.search
    spaces = {key: _taken(values) for key, values in asked.space.items()}
    ends = [] if asked.hours is None else [f"{asked.hours:g} hours"]
    if asked.trials is not None or asked.sampler.name == "grid":
        ends.insert(0, f"{tuned.count(plan)} trials")
    rows = [
        *[("name", plan.name), *_summary(plan.file)[1:]],
        *spaces.items(),
        *_code(calls),
    ]
    found = {
        "ok": True,
        "search": plan.name,
        "space": spaces,
        "config": plan.file.resolved,
        "code": [call.as_json() for call in calls],
        "notes": written(notes),
    }
    said = f"{file} can be searched: {' or '.join(ends)}."
    emit(found, as_json, _text(rows, notes, said))


def _notes(runs: "Sequence[RunFile]") -> "tuple[list[Note], list[Call]]":
    """Return what is to be known of runs, and which functions of other packages they call, each once."""
    from graftlab import config
    from graftlab.data import foreign_code
    from graftlab.runfile import checks
    from graftlab.runs import material

    notes: list[Note] = []
    calls: list[Call] = []
    examined: list[Any] = []
    for run in runs:
        with config.placed(run.document):
            found = [*run.notes, *checks.unusual_rate(run), *checks.slow_formats(run)]
            if run.resolved["task"] not in examined:
                examined.append(run.resolved["task"])
                found += material.examine(run)
            if getattr(run.method.config, "peft", None):
                from graftlab.runs import trials

                found += trials.of_fields(run)
            parts = (run.task, *run.task.parts.values())
            named = [call for part in parts if (call := foreign_code.called(part.config))]
        notes += [note for note in found if note not in notes]
        calls += [call for call in named if call not in calls]
    return notes, calls


def _outline(run: "RunFile") -> "Outline":
    from graftlab import config
    from graftlab.planning.outline import outline

    with config.placed(run.document):
        return outline(run)


def _taken(values: "Range") -> str:
    """Return what a field may take, in words."""
    from graftlab.study.labels import shown

    if values.choice is not None:
        said = ", ".join(map(shown, values.choice))
    else:
        low, high = map(shown, values.ends)
        said = f"{low} to {high}" + (", by its logarithm" if values.log else "")
        said += f", in steps of {shown(values.step)}" if values.step else ""
    return said + "".join(f", where {key} is {shown(value)}" for key, value in values.when.items())


def _code(calls: "Sequence[Call]") -> list[tuple[str, str]]:
    return [("code", f"{call}, called only with --allow-code") for call in calls]


def _text(rows: Sequence[tuple[str, str]], notes: "Sequence[Note]", said: str) -> str:
    return "\n".join([aligned(rows), *(f"note: {note}" for note in notes), said])


def _summary(run: Any) -> list[tuple[str, str]]:
    task, training = run.resolved["task"], run.resolved["training"]
    length = training["max_steps"] or training["epochs"]
    unit = "steps" if training["max_steps"] else "epochs"
    keys = ("data_dir", "files", "hub", "source")  # a source is shown, never imported
    data = next((f"{key} {_short(task[key])}" for key in keys if task.get(key)), "no source")
    if run.task.parts:
        data = f"{len(run.task.parts)} tasks: {', '.join(run.task.parts)}"
    return [
        ("name", run.name),
        (
            "backbone",
            f"{run.resolved['backbone'].get('model') or ''} ({run.backbone.name})".strip(),
        ),
        ("task", f"{task.get('name') or ''} ({run.task.name}), {data}".strip()),
        ("method", run.method.name),
        ("training", f"{length:g} {unit}, batches of {training['batch_size']}"),
    ]


def _short(source: object) -> str:
    """Return where data come from in a few words."""
    if isinstance(source, dict):
        return " ".join(str(source[key]) for key in ("path", "name", "train") if source.get(key))
    return str(source)
