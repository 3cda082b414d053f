"""Score a finished run on a split of its task, again."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from graftlab.commands import _control_table, _forgotten, _harness
from graftlab.commands._class_table import class_lines
from graftlab.commands._options import AllowCode, Json, RunFolder, Step
from graftlab.commands._report import score_text
from graftlab.terminal import say, say_json

if TYPE_CHECKING:
    from graftlab.inference.scores import Difference, Mistake, Scored

LONGEST = 600  # characters of an input on the terminal


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
    step: Step = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", min=1, help="As the run's, unless given.")
    ] = None,
    errors: Annotated[
        int,
        typer.Option("--errors", min=0, metavar="N", help="Show so many of the worst predictions."),
    ] = 0,
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
    controls: Annotated[
        bool,
        typer.Option(
            "--controls",
            help="Of a run that reads vectors: ask it with others too, with none, and with the text itself.",
        ),
    ] = False,
    forgetting: Annotated[
        str | None,
        typer.Option(
            "--forgetting",
            metavar="general|FILE|NAME",
            help="How much worse than its base it does on texts (a file; general: our own) or on a task.",
        ),
    ] = None,
    allow_code: AllowCode = False,
    as_json: Json = False,
) -> None:
    """Score a finished run on a split of its task, or of another one, from its saved adapter.

    Predictions that the run has written stay; others are written beside them and compared. --controls shows
    whether vectors are read at all: its table, figure and predictions are in the run's evaluation/, as is
    what --forgetting finds.
    """
    from graftlab import inference, runfile
    from graftlab.inference import harness as lm_eval
    from graftlab.inference import scores
    from graftlab.programs import sandbox

    if execute_code:
        sandbox.check()
    _check_options(harness, (split, task), overrides, execute_code, (fewshot, limit, harness_tasks))
    if controls:
        _control_table.check(harness, errors, execute_code)
    if forgetting:
        others = (split, task, step, batch_size, errors, execute_code, harness, controls)
        _forgotten.show(run, forgetting, any(others), as_json)
        return
    other = runfile.resolve_task(task, overrides or ()) if task else None
    if not harness and other is None:
        inference.check_split(run, split or "test", step)
    adapted = inference.load(run, step=step, quiet=False)
    if harness:
        names = tuple(name.strip() for name in harness.split(",") if name.strip())
        asked = lm_eval.Options(names, fewshot, limit, harness_tasks)
        found = lm_eval.evaluate(adapted, asked, batch_size or adapted.batch_size)
        _harness.show(found, lm_eval.keep(adapted, asked, found), as_json)
        return
    if controls:
        _control_table.show(adapted, split or "test", batch_size, other, as_json)
        return
    scored = scores.score(
        adapted, split or "test", batch_size, other, execute_code=execute_code, errors=errors
    )
    _show(scored, as_json)


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


def _show(scored: "Scored", as_json: bool) -> None:
    if as_json:
        say_json(scored.as_json())
        return
    for line in class_lines(scored.classes):
        say(line)
    for mistake in scored.worst:
        say(_mistake(mistake))
    for name, score in scored.scores.items():
        say(f"{name:>20}  {score_text(score.as_json())}")
    say(f"{'loss':>20}  {score_text({'value': scored.loss})}")
    say(f"{len(scored.predictions)} predictions are in {scored.path}{_compared(scored.difference)}")


def _mistake(mistake: "Mistake") -> str:
    """Return a bad prediction with what the model was asked, on two lines or more."""
    asked = " / ".join(str(v) for v in mistake.inputs.values() if v is not None)
    sure = "" if mistake.probability is None else f" ({mistake.probability:.3f})"
    said = f"{mistake.prediction}{sure}, not {mistake.label}; loss {mistake.loss:.4g}"
    return f"row {mistake.row} of {mistake.file}: {said}\n  {asked[:LONGEST]}\n"


def _compared(difference: "Difference | None") -> str:
    if difference is None:
        return "."
    if not any(difference):
        return ", equal to the last bit."
    return (
        f". The run's own are others and stay: {difference.rows} rows have another prediction, "
        f"and numbers differ by up to {difference.largest:.2g}."
    )
