"""Score a finished run on a split of its task, again."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from graftlab.commands._options import Json, RunFolder

if TYPE_CHECKING:
    from types import ModuleType

    from graftlab.rundir.run import Run


def command(
    run: RunFolder,
    split: Annotated[
        str | None,
        typer.Option(
            "--split", help="train, validation or test, which it is unless given.", metavar="SPLIT"
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            "--task",
            metavar="NAME|FILE",
            help="Another task: a name of the catalogue, or a run file or recipe whose task is meant.",
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Of --task, as in task.data_dir=FOLDER."),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", min=1, help="As the run's, unless given.")
    ] = None,
    execute_code: Annotated[
        bool,
        typer.Option(
            "--execute-code", help="Run the programs that the model writes, in a sandbox (pass@k)."
        ),
    ] = False,
    harness: Annotated[
        str | None,
        typer.Option(
            "--harness",
            metavar="NAMES",
            help="Ask lm-evaluation-harness instead: names of its tasks, as in arc_easy,hellaswag.",
        ),
    ] = None,
    fewshot: Annotated[
        int | None, typer.Option("--fewshot", min=0, help="Of --harness: examples in front.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Of --harness: only so many questions.")
    ] = None,
    harness_tasks: Annotated[
        Path | None,
        typer.Option("--harness-tasks", metavar="DIR", help="Of --harness: further tasks as YAML."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Score a finished run on a split of its task, or of another one, from its saved adapter.

    Predictions that the run has written stay; others are written beside them and compared.
    """
    from graftlab import inference, programs, runfile
    from graftlab.commands import _harness
    from graftlab.commands._report import print_json, score_text
    from graftlab.inference.harness import Options
    from graftlab.programs import sandbox
    from graftlab.runs import evaluation

    if execute_code:
        sandbox.check()
    _check_options(harness, (split, task), overrides, execute_code, (fewshot, limit, harness_tasks))
    split = split or "test"
    other = runfile.resolve_task(task, overrides or ()) if task else None
    adapted = inference.load(run)
    if harness:
        tasks = tuple(name.strip() for name in harness.split(",") if name.strip())
        asked = Options(tasks, fewshot, limit, harness_tasks)
        _harness.ask(adapted, asked, batch_size, as_json)
        return
    predictions, scores = adapted.evaluate(split, batch_size, other)
    if execute_code:
        predictions = programs.run(predictions)
        scores = evaluation.score(predictions, list(scores), _metric)
    predictions = evaluation.explained(predictions, list(scores), _metric)
    loss = evaluation.mean_loss(predictions)
    named = f"{other.config.name or other.name}-{split}" if other else split
    path, difference = keep(adapted.run, named, predictions)
    if as_json:
        metrics = {name: score._asdict() for name, score in scores.items()}
        values = {"split": split, "metrics": metrics, "loss": loss}
        print_json(values | {"predictions": str(path), "difference": difference})
        return
    for name, score in scores.items():
        print(f"{name:>20}  {score_text(score._asdict())}")
    print(f"{'loss':>20}  {score_text({'value': loss})}")
    print(f"{len(predictions)} predictions are in {path}{_compared(difference)}")


def _check_options(
    harness: str | None,
    ours: tuple[str | None, str | None],
    overrides: list[str] | None,
    execute_code: bool,
    of_harness: tuple[object, ...],
) -> None:
    from graftlab.errors import ConfigError

    if harness and any(ours):
        raise ConfigError("--harness has tasks of its own: give it or --task and --split.")
    if harness and execute_code:
        raise ConfigError("--execute-code is for pass@k of this program, not for --harness.")
    if overrides and not ours[1]:
        raise ConfigError("--set is for the task that --task names; a run's own task is as it was.")
    if not harness and any(option is not None for option in of_harness):
        raise ConfigError("--fewshot, --limit and --harness-tasks are options of --harness.")


def _metric(name: str) -> "ModuleType":
    from graftlab import registry

    return registry.find("metrics", name)


def keep(
    run: "Run", split: str, predictions: list[dict[str, Any]]
) -> tuple[Path, dict[str, Any] | None]:
    """Write predictions where none are; else compare with those that are there, which stay.

    Returns where they are, and how they differ from the run's (None where it had none).
    """
    from graftlab.runs import prediction

    path = run.predictions(split)
    if not path.exists():
        prediction.write(path, predictions)
        return path, None
    before = prediction.read(path)
    difference = differ(before, predictions)
    if not any(difference.values()):
        return path, difference
    path = path.with_name(f"{split}.again.jsonl")
    prediction.write(path, predictions)
    return path, difference


def differ(before: list[dict[str, Any]], now: list[dict[str, Any]]) -> dict[str, Any]:
    """Return in how many rows the prediction is another (or whether it `passed` its tests), and by how much
    a number differs at most."""
    changed = sum(
        (a["prediction"], a.get("passed")) != (b["prediction"], b.get("passed"))
        for a, b in zip(before, now, strict=False)
    ) + abs(len(before) - len(now))
    gaps = [
        abs(x - y)
        for a, b in zip(before, now, strict=False)
        for x, y in zip(_numbers(a), _numbers(b), strict=False)
    ]
    return {"rows": changed, "largest": max(gaps, default=0.0)}


def _numbers(row: dict[str, Any]) -> list[float]:
    prediction = [row["prediction"]] if isinstance(row["prediction"], float) else []
    return [*row.get("probabilities", ()), *prediction]


def _compared(difference: dict[str, Any] | None) -> str:
    if difference is None:
        return "."
    if not any(difference.values()):
        return ", equal to the last bit."
    return (
        f". The run's own are others and stay: {difference['rows']} rows have another prediction, "
        f"and numbers differ by up to {difference['largest']:.2g}."
    )
