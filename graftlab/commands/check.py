"""Check a run file: keys, values, conflicts, names, files and columns, without loading anything."""

from typing import Annotated, Any

import typer

from graftlab.commands._options import File, Json, Overrides, aligned, emit


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
    """Check a run file: keys, values, conflicts, names, files and columns.

    Everything that is wrong is listed at once. Local rows are read, and what is odd about them is said;
    no model is loaded, and nothing is downloaded or written. A function of another package that makes the
    rows is named, and not imported.
    """
    from graftlab import config, runfile
    from graftlab.contracts import written
    from graftlab.data import foreign_code
    from graftlab.runfile import checks
    from graftlab.runs import material

    run = runfile.resolve(config.read(file, overrides or ()))
    with config.placed(run.document):
        notes = [*run.notes, *checks.unusual_rate(run), *checks.slow_formats(run)]
        notes += material.examine(run)
        if getattr(run.method.config, "peft", None):
            from graftlab.runs import trials

            notes += trials.of_fields(run)
    parts = (run.task, *run.task.parts.values())
    with config.placed(run.document):
        calls = [call for part in parts if (call := foreign_code.called(part.config))]
    found: dict[str, Any] = {"ok": True, "config": run.resolved}
    found["code"] = [call.as_json() for call in calls]
    rows = _summary(run) + [("code", f"{call}, called only with --allow-code") for call in calls]
    if model:
        from graftlab.planning.outline import outline

        with config.placed(run.document):
            built = outline(run)
        notes += [built.note] if built.note else []
        found["model"] = built.as_json()
        rows += [(key, str(value)) for key, value in found["model"].items()]
    found["notes"] = written(notes)
    lines = [aligned(rows), *(f"note: {note}" for note in notes), f"{file} can be run."]
    emit(found, as_json, "\n".join(lines))


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
