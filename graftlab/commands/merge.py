"""Fold a run's adapter into its backbone, and certify what comes out."""

from pathlib import Path
from typing import Annotated

import typer

from graftlab.commands._options import AllowCode, Json, RunFolder
from graftlab.terminal import say, say_json


def command(
    run: RunFolder,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="A new folder.")],
    dtype: Annotated[
        str | None,
        typer.Option(
            "--dtype",
            metavar="DTYPE",
            help="float32, bfloat16 or float16; the backbone's own unless given.",
        ),
    ] = None,
    rows: Annotated[
        int, typer.Option("--rows", min=1, metavar="N", help="How many examples are compared.")
    ] = 32,
    check: Annotated[
        bool, typer.Option("--check", help="Certify the folder that is there; write nothing.")
    ] = False,
    allow_code: AllowCode = False,
    as_json: Json = False,
) -> None:
    """Fold a run's adapter into its backbone: a plain transformers folder, with a certificate beside it.

    The folder is loaded again and compared with the run: logits, layers and every weight. Where they differ
    by more than rounding, the command fails and leaves what it made beside the folder that was asked for.
    """
    from graftlab.errors import ConfigError, ModelError
    from graftlab.release import merge

    if check and dtype is not None:
        raise ConfigError("--dtype does nothing with --check: the folder has its number format.")
    certificate = merge.certify(run, out, rows) if check else merge.merge(run, out, dtype, rows)
    if not certificate["passed"]:
        raise ModelError(f"{out} does not do what {run} does: {merge.said(certificate)}.")
    if as_json:
        say_json({"out": str(out), **certificate})
        return
    logits, quantized = certificate["compared"]["logits"], certificate["quantized"]
    say(f"The merged model is in {out}, in {certificate['dtype']}; transformers loads it as it is.")
    whose = (
        "the run's" if quantized is None else "the adapted model's on what its few bits stand for"
    )
    say(
        f"On {certificate['sample']['what']} its logits differ from {whose} by {logits['largest']:.2g} at "
        f"most, {logits['mean']:.2g} on average; the largest is {logits['scale']:.3g}."
    )
    if quantized is not None:
        cost = quantized["logits"]
        say(
            f"They differ from the run's, which computes in few bits, by {cost['largest']:.2g} at most, "
            f"{cost['mean']:.2g} on average."
        )
