"""What adapted models have forgotten: beside their base, on something that they were not trained on.

Of a language model the loss of a token of held texts; of others the accuracy of a probe (logistic regression)
that learns another task from what the backbone puts out, the mean of its last hidden states over the tokens
(Alain & Bengio, 2016, arXiv 1610.01644). The base is asked once, and its answers are kept.
"""

import hashlib
import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from graftlab import registry, runfile
from graftlab.contracts import Data, Prediction, Problem, Task
from graftlab.data.splits import no_split
from graftlab.errors import DataError, GraftlabError
from graftlab.inference import probe
from graftlab.inference.adapted import Adapted, backbone_of, device_of, load, problem_of
from graftlab.rundir import files
from graftlab.rundir import run as rundir
from graftlab.rundir.records import Forgotten, Json
from graftlab.rundir.run import Run
from graftlab.runfile import Part, RunFile
from graftlab.runs import evaluation, forgetting, material, paired, prediction
from graftlab.runs.forgetting import Asked
from graftlab.seeds import mix
from graftlab.terminal import tell

log = logging.getLogger("graftlab")
FORMAT = 1
"""Of the answers that are kept: a new number asks again."""
MOST = 1_000
"""Examples of a split that are asked: drawn, where there are more."""
BATCH = 16
"""The same for all runs, so that the base is asked as they are."""


class Measured(NamedTuple):
    """What is known of what runs have forgotten, by their folders."""

    found: dict[Path, Forgotten]
    causes: dict[Path, str]
    """Why it is not known of the others."""
    bug: Exception | None
    """The first error that is none of a user's: for whoever calls to raise when all is written."""


class _Held(NamedTuple):
    """What a model is asked, read."""

    part: Part[Any]
    data: Data
    fingerprint: str

    @property
    def is_text(self) -> bool:
        return self.data.problem.kind == "tokens"


def measure_all(runs: Sequence[Path], asked: Asked, quiet: bool = False) -> Measured:
    """Return what finished runs have forgotten, as far as that can be measured: else it is said why not.

    What was measured before is not measured again; each record is in its run as soon as it is known.
    """
    measured = Measured({}, {}, None)
    for number, path in enumerate(runs, start=1):
        try:
            if asked.is_general and not _reads_text(path):
                continue
            known = forgetting.path(Run(path), asked.name).is_file()
            if not (quiet or known):
                tell(f"[{number}/{len(runs)}] {path.name}: what it has forgotten ({asked.name})")
            measured.found[path] = measure(path, asked, quiet)
        except GraftlabError as error:
            measured.causes[path] = str(error)
        except Exception as error:  # tables of runs that took hours are written whatever this is
            measured.causes[path] = f"{type(error).__name__}: {error}"
            measured = measured._replace(bug=measured.bug or error)
        if path in measured.causes:
            log.warning("what %s has forgotten is not known: %s", path.name, measured.causes[path])
    return measured


def _reads_text(path: Path) -> bool:
    task = runfile.of_run(Run(path)).task
    return bool({"encoder", "decoder"} & {*task.module.backbones(task.config)})


def measure(path: str | Path, asked: Asked, quiet: bool = True) -> Forgotten:
    """Return how much worse a finished run does than its base, kept in the run's `evaluation/`. Unless
    `quiet`, what takes long is told.

    Raises:
        ConfigError: it is no run.
        DataError: what is asked cannot be read, or is not for such a model.
        ModelError, CheckpointError: as `load`; or the backbone puts out no hidden states.
    """
    run = rundir.find(Path(path))
    file = runfile.of_run(run)
    problem = problem_of(file, run.read_environment()["data"])
    held = _held(asked, problem, file)
    key = _key(held, run, file)
    weights = sorted(run.adapter_folder.rglob("*.safetensors"))
    adapter = {one.relative_to(run.adapter_folder).as_posix(): files.sha256(one) for one in weights}
    known = forgetting.of_run(run, asked.name)
    if known is not None and (known["key"], known["adapter"]) == (key, adapter):
        return known
    base = _of_base(held, run, file, key, quiet)
    record = _compared(asked.name, base, _answers(load(path, quiet=quiet), held))
    record.update({"key": key, "adapter": adapter})
    kept = forgetting.path(run, asked.name)
    kept.parent.mkdir(exist_ok=True)
    files.write_json(kept, record)
    run.cover(kept)
    return record


def _held(asked: Asked, problem: Problem, file: RunFile) -> _Held:
    """Return what a model with such a problem is asked.

    Raises:
        DataError: it cannot be read, or is of no use to such a model.
    """
    of_text = problem.kind == "tokens"
    if asked.task is None and of_text:
        return _texts(asked.texts or forgetting.GENERAL)
    if asked.texts is not None:
        raise DataError(
            f"{asked.texts} has texts, and the model puts out {problem.kind}: it has no loss on them.",
            ("Give a task of classes, which a probe can learn from its features.",), kind="conflict",
        )  # fmt: skip
    part = asked.task or forgetting.general()
    data = material.read(replace(file, task=part))
    if (data.problem.kind == "tokens") != of_text or data.problem.kind == "regression":
        wanted = "texts" if of_text else "classes"
        raise DataError(
            f"{asked.name} wants {data.problem.kind} of a model; of one that puts out {problem.kind} a task "
            f"of {wanted} can be asked.", kind="conflict",
        )  # fmt: skip
    for split in ("test",) if of_text else ("train", "test"):
        if not len(data.splits.get(split, ())):
            raise no_split(split, [name for name in data.splits if data.splits[name]])
    return _Held(part, data, str(data.record.get("fingerprint")))


def _texts(path: Path) -> _Held:
    """Return a file of texts as rows to predict, each whole."""
    module: Any = registry.find("tasks", "generation")
    config = module.Config(template="text", files={"train": path})
    rows = [{**row, "label": row["fields"]["text"]} for row in module.read_inputs(config, path)]
    return _Held(
        Part("generation", module, config),
        Data({"test": rows}, Problem("tokens")),
        files.sha256(path),
    )


def _key(held: _Held, run: Run, file: RunFile) -> str:
    """Return a hash of all that the base's answers depend on."""
    of: dict[str, Json] = {
        "format": FORMAT,
        "backbone": file.resolved["backbone"],
        "sha256": run.read_environment()["backbone"].get("sha256"),
        "precision": file.training.precision,
        "device": device_of(None).partition(":")[0],
        "task": held.part.config.model_dump(mode="json", exclude={"metrics", "files", "data_dir"}),
        "rows": held.fingerprint,
        "most": MOST,
        "batch": BATCH,
    }
    return hashlib.sha256(json.dumps(of, sort_keys=True, default=str).encode()).hexdigest()


def _of_base(held: _Held, run: Run, file: RunFile, key: str, quiet: bool) -> list[Prediction]:
    """Return the answers of a run's base, asked once and kept where what can be made again is."""
    kept = file.paths.cache / "forgetting" / f"{key}.jsonl"
    if kept.is_file():
        return prediction.read(kept)
    problem = problem_of(file, run.read_environment()["data"])
    backbone = backbone_of(run, file, problem)
    model = backbone.model.to(device_of(None)).eval()
    rows = _answers(Adapted(run, file, problem, backbone, model, quiet=quiet), held)
    prediction.write(kept, rows)
    return rows


def _answers(adapted: Adapted, held: _Held) -> list[Prediction]:
    """Return what a model says, by example: the loss of its tokens, or what a probe takes it for."""
    file = replace(adapted.file, task=held.part)
    task = material.bind(file, held.data, adapted.backbone)
    if not held.is_text:
        drawn = {split: _drawn(task, split) for split in ("train", "test")}
        return probe.probed(adapted, task, drawn, BATCH)
    with adapted.precision():
        rows = prediction.predict(
            adapted.model, task, "test", BATCH, only=_drawn(task, "test"), quiet=adapted.quiet
        )
    names = ("index", "label", "prediction", "loss", "count", "source")
    return [{name: row[name] for name in names if name in row} for row in rows]


def _drawn(task: Task, split: str) -> list[int]:
    """Return the examples of a split that are asked, the same for all models."""
    size = task.size(split)
    order = np.random.default_rng(mix(0, "forgetting", split)).permutation(size)
    return sorted(order[:MOST].tolist())


def _compared(name: str, base: Sequence[Prediction], adapted: Sequence[Prediction]) -> Forgotten:
    """Return the record of the answers of both, without what they were made of."""
    by_loss = "loss" in base[0]

    def value(rows: Iterable[Prediction]) -> float | None:
        kept = list(rows)
        if by_loss:
            return evaluation.mean_loss(kept)
        return sum(row["label"] == row["prediction"] for row in kept) / len(kept)

    def forgotten(kept: Sequence[int]) -> float | None:
        before, after = (value(rows[place] for place in kept) for rows in (base, adapted))
        if before is None or after is None:
            return None
        return after - before if by_loss else before - after

    units = paired.jackknife(forgotten, base)
    whole, before, after = forgotten(range(len(base))), value(base), value(adapted)
    if whole is None or before is None or after is None or isinstance(units, str):
        raise DataError(f"nothing can be said of {name}: {units}.", kind="undefined")
    return {
        "name": name,
        "measure": "loss" if by_loss else "accuracy",
        "base": before,
        "adapted": after,
        "forgotten": whole,
        "examples": len(base),
        "units": units.tolist(),
        "key": "",
        "adapter": {},
    }
