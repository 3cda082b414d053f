"""`layer: auto` made a number: the selection that a run file asks for, done once and shared by all seeds.

A method takes part by three functions, `wants_layer(config)`, `with_layer(config, layer)` and
`vectors(backbone, batch, config)` (what it would plug in, (B, d)), and by the fields `llm`, `revision`
and `selection`.
"""

import contextlib
import dataclasses
import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from graftlab import registry
from graftlab.contracts import Backbone, Data, Task
from graftlab.errors import ConfigError, ModelError
from graftlab.rundir import files
from graftlab.runfile import Part, RunFile
from graftlab.seeds import mix
from graftlab.selection import examples, results, survey
from graftlab.selection.request import Config
from graftlab.training.trackers import Shown, Trackers
from graftlab.weights import pretrained

if TYPE_CHECKING:
    from numpy.typing import NDArray

log = logging.getLogger("graftlab")

BATCH = 32  # examples that go through the encoder at once
FORMAT = 1  # of what a selection computes: a new number forgets the selections of old


class Loaded(NamedTuple):
    """What a run has loaded before its method is attached."""

    data: Data
    backbone: Backbone
    task: Task


def load(file: RunFile) -> Loaded:
    """Read a run's data and load its backbone, as the run itself does.

    Raises:
        ConfigError, DataError, ModelError, Refused
    """
    data = file.task.module.read(file.task.config, file.paths, file.seed)
    backbone = file.backbone.module.load(
        file.backbone.config, data.problem, mix(file.seed, "backbone")
    )
    task = file.task.module.bind(data, backbone, file.task.config, mix(file.seed, "task"))
    return Loaded(data, backbone, task)


def wanted(file: RunFile) -> bool:
    """Return whether a layer is still to be chosen."""
    wants = getattr(file.method.module, "wants_layer", None)
    return wants is not None and bool(wants(file.method.config))


def choose(file: RunFile, out: Path, loaded: Loaded) -> int:
    """Return the layer that was chosen: as `out` says where a run has chosen before, else by a selection,
    whose results are written there.

    Raises:
        ConfigError, DataError, ModelError: there is nothing to choose by, or from.
    """
    if not (out / results.NAME).is_file():
        select(file, loaded, out)
    found = files.read_json(out / results.NAME)
    log.info("%s", found["statement"])
    return int(found["best_llm_layer"])


def with_layer(file: RunFile, layer: int) -> RunFile:
    """Return the run file with a number in place of `auto`; `resolved` stays what was asked for."""
    method = file.method
    config = method.module.with_layer(method.config, layer)
    return dataclasses.replace(file, method=Part(method.name, method.module, config))


def select(
    file: RunFile,
    loaded: Loaded,
    out: Path,
    *,
    keep_states: bool = False,
    notify: Callable[[str], None] = log.info,
) -> dict[str, Any]:
    """Return the selection for a run file, and write it into `out`.

    It is computed in a folder below `paths.cache` that is named by all it depends on: an equal one is
    not computed twice, and one that was cut short is gone on with. With `keep_states` the pooled states
    of each scored layer are left in `out`.

    Raises:
        ConfigError: the method plugs in no layer, the task has no classes or texts, or `out` is taken.
        DataError: the training examples cannot tell layers apart.
        ModelError: the large model cannot be read.
    """
    config = settings(file)
    labels_N, classes = _labels(loaded.data, file)
    positions = examples.draw(labels_N, classes, config)
    llm = file.method.config.llm
    located = pretrained.locate(llm, file.method.config.revision, weights=False)
    key = _key(file, loaded, located, config)
    _check_free(out, key)
    folder = file.paths.cache / "selections" / key
    with _alone(folder):
        again = keep_states and (folder / results.NAME).is_file()  # they are not kept with it
        if again:
            (folder / results.NAME).unlink()
        if not (folder / results.NAME).is_file():
            request = _request(file, loaded, positions, located)
            request = dataclasses.replace(request, keep_states=keep_states, notify=notify)
            request = dataclasses.replace(request, facts={**request.facts, "key": key})
            survey.carry_out(request, config, folder)
        else:
            notify(f"the selection in {folder} is used again: nothing that matters has changed")
        return _copy(folder, out)


def settings(file: RunFile) -> Config:
    """Return how a run file's method selects.

    Raises:
        ConfigError: it plugs in no layer.
    """
    config = getattr(file.method.config, "selection", None)
    if not isinstance(config, Config) or not file.method.config.llm:
        raise ConfigError(
            f"the method {file.method.name!r} of this run file plugs in no layer of a large model, so "
            f"there is none to select. Choose method pifi, with an llm."
        )
    return config


def _labels(data: Data, file: RunFile) -> "tuple[NDArray[Any], Sequence[str]]":
    import numpy as np

    if data.problem.parts:
        raise ConfigError(
            "a layer is selected by one task with classes, and this one is a mixture. Give method.layer a "
            "number: select with one of its tasks, or with each."
        )
    first = data.splits["train"][0]
    if data.problem.kind != "classes" or "text" not in first:
        what = data.problem.kind if "text" in first else "images"
        raise ConfigError(
            f"a layer is selected by texts with classes; this task has {what}. Give method.layer a "
            f"number."
        )
    labels = np.array([row["label"] for row in data.splits["train"]])
    return labels, data.problem.labels


def _key(file: RunFile, loaded: Loaded, located: pretrained.Located, config: Config) -> str:
    """Return a name for all that the selection depends on."""
    paths = sorted(located.folder.glob("*.safetensors")) if located.revision is None else []
    facts = {
        "format": FORMAT,
        "llm": [located.source, located.revision],
        # a folder has no revision: its files' times tell that they were written anew
        "weights": [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in paths],
        "selection": config.model_dump(mode="json"),
        "data": loaded.data.record["fingerprint"]["train"],
        "encoder": [file.resolved["backbone"], loaded.backbone.record.get("sha256")],
        "vectors": [getattr(file.method.config, name, None) for name in ("pooling", "pad_to")],
        "max_length": getattr(loaded.task, "record", {}).get("max_length"),
    }
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _check_free(out: Path, key: str) -> None:
    """Refuse a folder with something else in it.

    Raises:
        ConfigError: there is another selection, or something that is none.
    """
    if not out.is_dir() or not any(out.iterdir()):
        return
    path = out / results.NAME
    if path.is_file() and files.read_json(path).get("key") == key:
        return
    what = "another selection" if path.is_file() else "something that is no selection"
    raise ConfigError(f"{out} holds {what}. Choose another folder with --out.")


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other process works in the folder."""
    import fcntl

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        yield


def _request(
    file: RunFile, loaded: Loaded, positions: "NDArray[Any]", located: pretrained.Located
) -> survey.Request:
    import torch

    from graftlab.weights import layers

    rows = [loaded.data.splits["train"][int(position)] for position in positions]
    checkpoint = layers.open(located.source, revision=located.revision, keep=False)
    examples = survey.Examples(
        [row["text"] for row in rows],
        [row.get("pair") for row in rows],
        _labels(loaded.data, file)[0][positions],
        loaded.data.problem.labels,
        _vectors(file, loaded, positions.tolist()),
    )
    facts = {
        "task": file.task.name,
        "dataset": file.resolved["task"].get("name") or file.name,
        "slm": file.resolved["backbone"].get("model") or file.backbone.name,
        "llm": file.method.config.llm,
        "llm_source": checkpoint.source,
        "llm_revision": checkpoint.revision,
    }
    return survey.Request(
        checkpoint,
        _tokenizer(located),
        examples,
        facts,
        lambda name: registry.find("scores", name),
        registry.names("scores"),
        "cuda" if torch.cuda.is_available() else "cpu",
    )


def _tokenizer(located: pretrained.Located) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(located.folder, trust_remote_code=False)
    except (ImportError, ValueError, OSError, KeyError, TypeError, RuntimeError) as error:
        raise ModelError(f"the tokenizer of {located.source} cannot be loaded: {error}") from error


def _vectors(file: RunFile, loaded: Loaded, positions: list[int]) -> "NDArray[Any]":
    """Return (N, d) what the frozen encoder would plug in, in the order of `positions`."""
    import numpy as np
    import torch

    model: Any = loaded.backbone.model
    training = model.training
    model.eval()
    found = []
    with torch.no_grad():
        for start in range(0, len(positions), BATCH):
            batch = loaded.task.batch("train", positions[start : start + BATCH], None)
            batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
            vectors_Bd = file.method.module.vectors(loaded.backbone, batch, file.method.config)
            found.append(vectors_Bd.float().cpu().numpy())
    model.train(training)
    return np.concatenate(found).astype(np.float64)


def _copy(folder: Path, out: Path) -> dict[str, Any]:
    """Bring the results of a selection to `out`, selection.json last, and its states if it has kept them."""
    out.mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.name not in (results.NAME, "lock"):
            shutil.copyfile(path, out / path.name)
    if (folder / survey.KEPT).is_dir():
        shutil.rmtree(out / survey.KEPT, ignore_errors=True)
        shutil.move(folder / survey.KEPT, out / survey.KEPT)
    found: dict[str, Any] = files.read_json(folder / results.NAME)
    files.write_json(out / results.NAME, found)
    return found


def shown(out: Path) -> Shown | None:
    """Return a selection's table and pictures for trackers, or None where there is no selection."""
    if not (out / results.NAME).is_file():
        return None
    found = files.read_json(out / results.NAME)
    names = list(found["layers"][0]["scores"])
    rows = [
        [layer["layer"], layer["score"], *(layer["scores"][name]["value"] for name in names)]
        for layer in found["layers"]
    ]
    pictures = sorted(out.glob("*.png"))
    return Shown("selection", ("layer", "score", *names), rows, pictures)


def track(file: RunFile, out: Path, shown: Shown, found: Mapping[str, Any]) -> None:
    """Show a selection that is no part of a run to the trackers that the run file names."""
    with Trackers(file.tracking, out) as trackers:
        trackers.start({"config": file.resolved, "model": found["statement"]})
        trackers.show(shown)
        trackers.finish({"best_llm_layer": found["best_llm_layer"]})
