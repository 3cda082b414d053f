"""The demo: methods compared in two minutes, on data and a model that are made on the spot.

A small vision transformer learns scikit-learn's digits 0 to 4 and is frozen; each method then adapts it
to the digits 5 to 9. It is a study like any other, after one run that makes the backbone.
"""

import json
import os
import shlex
from collections.abc import Iterator
from pathlib import Path

from graftlab import study
from graftlab.errors import Argument, DataError, ModelError, Place, near_file
from graftlab.rundir import files
from graftlab.rundir.run import Run
from graftlab.study import Comparison, Plan

PRETRAINING, DIGITS, TEXT = "demo/pretraining", "demo/digits", "demo/text"
PRELOAD = ("sklearn.datasets",)  # where the digits come from
HEAD = "classifier."  # the layer that tells 0 to 4 apart: no part of a backbone


def carry_out(
    out: Path, data_dir: Path | None = None, quiet: bool = False
) -> Iterator[tuple[Path, Comparison]]:
    """Yield each study's directory and comparison: digits, and text if `data_dir` holds SST-2's files.

    What is there already is not done again.

    Raises:
        ConfigError, DataError: `data_dir` does not hold what SST-2's files hold.
        ModelError: the backbone could not be made.
        Stopped: a signal came; what was under way has been saved.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # matrices this small gain nothing from a second
    given = f" --data-dir {shlex.quote(str(data_dir))}" if data_dir else ""
    again = f"graftlab demo --out {shlex.quote(str(out))}{given}"
    plans = {}
    if data_dir is not None:  # read first, so that a wrong folder is told before anything runs
        if not data_dir.is_dir():
            argument = Argument("data_dir", str(data_dir))
            raise DataError(
                f"there is no folder {data_dir.absolute()}.{near_file(data_dir)}",
                place=Place(argument=argument),
            )
        place = f"base.task.data_dir={json.dumps(str(data_dir.absolute()))}"
        plans["text"] = study.read(TEXT, [place])
    backbone = _backbone(out, quiet, again)
    place = f"base.backbone.model={json.dumps(str(backbone.absolute()))}"
    plans = {"digits": study.read(DIGITS, [place])} | plans
    for name, plan in plans.items():
        yield (
            out / name,
            study.compare(plan, study.carry_out(plan, out / name, quiet, again, PRELOAD)),
        )


def _backbone(out: Path, quiet: bool, again: str) -> Path:
    """Return the folder of a model that knows the digits 0 to 4, without its head, as transformers has it.

    Raises:
        ModelError: its run did not finish.
    """
    plan = study.read(PRETRAINING)
    (done,) = study.carry_out(plan, out / "pretraining", quiet, again, PRELOAD)
    if done.cause:
        raise ModelError(f"the demo's backbone could not be made: {done.cause}")
    folder = out / "backbone"
    if not (folder / "config.json").is_file():  # which is written last
        _without_head(Run(done.folder), plan, folder)
    return folder


def _without_head(run: Run, plan: Plan, folder: Path) -> None:
    """Write a finished run's model into `folder`, but for its head, with its image processor."""
    from safetensors.numpy import load_file, save_file

    from graftlab.runs import material

    file = plan.runs[0].file
    problem = file.task.module.problem(file.task.config)
    folder.mkdir(parents=True, exist_ok=True)
    shape = material.backbone(file, problem, meta=True)
    shape.processor.save_pretrained(folder)
    weights = load_file(run.adapter / "model.safetensors")
    kept = {name: weight for name, weight in weights.items() if not name.startswith(HEAD)}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    files.write_text(folder / "config.json", (run.adapter / "config.json").read_text("utf-8"))
