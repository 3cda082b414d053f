"""Score a finished run on a split of its task, again."""

from typing import Annotated

import typer

from graftlab.commands._options import Json, RunFolder


def command(
    run: RunFolder,
    split: Annotated[
        str, typer.Option("--split", help="train, validation or test.", metavar="SPLIT")
    ] = "test",
    batch_size: Annotated[int, typer.Option("--batch-size", min=1)] = 32,
    as_json: Json = False,
) -> None:
    """Score a finished run on a split of its task, from its saved adapter; writes its predictions."""
    from graftlab import evaluation, files, inference

    adapted = inference.load(run)
    predictions, scores = adapted.evaluate(split, batch_size)
    path = adapted.run.predictions(split)
    evaluation.write_predictions(path, predictions)
    loss = evaluation.mean_loss(predictions)
    if as_json:
        metrics = {name: score._asdict() for name, score in scores.items()}
        print(files.dump_json({"split": split, "metrics": metrics, "loss": loss}), end="")
        return
    for name, score in scores.items():
        error = f" ± {score.standard_error:.4f}" if score.standard_error is not None else ""
        value = f"{score.value:.4f}{error}" if score.value is not None else f"- ({score.reason})"
        print(f"{name:>20}  {value}")
    print(f"{'loss':>20}  {loss:.4f}\n{len(predictions)} predictions are in {path}")
