"""`layer: auto` made a number: the selection that a run file asks for, done once and shared by all seeds.

A method takes part by its `LAYER` (`graftlab.contracts.LayerChoice`), and by the fields `llm`, `revision` and
`selection`.
"""

import contextlib
import dataclasses
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from graftlab.errors import ANOTHER, CheckpointError, ConfigError, Words
from graftlab.rundir import files, manifest
from graftlab.runfile import Part, RunFile
from graftlab.runs import layer_request, material
from graftlab.runs.material import Material
from graftlab.selection import results
from graftlab.selection import survey as surveys
from graftlab.training import allocation
from graftlab.training.trackers import Shown, Trackers
from graftlab.weights import packages, pretrained

log = logging.getLogger("graftlab")
ANEW: Words = ("Delete the folder that it lies in, and the layer is chosen anew.",)


def wanted(file: RunFile) -> bool:
    """Return whether a layer is still to be chosen."""
    layer = file.method.module.LAYER
    return layer is not None and layer.wanted(file.method.config)


def choose(
    file: RunFile, out: Path, loaded: Material, notify: Callable[[str], None] = log.info
) -> int:
    """Return the layer that was chosen: as `out` says where a run has chosen before, else by a selection,
    whose results are written there. `notify` is told how far it is, each layer's scores, and what is chosen
    and how sure that is.

    Raises:
        ConfigError, DataError, ModelError: there is nothing to choose by, or from.
    """
    if not (out / results.NAME).is_file():
        for line in said(select(file, loaded, out, notify=notify)):
            notify(line)
    notify(_read(out)["statement"])
    return chosen(out)


def said(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each layer of a selection: its score with half its interval, and those it is of."""
    for layer in found["layers"]:
        ends = layer["interval"]
        error = f" ± {(ends[1] - ends[0]) / 2:.3f}" if ends else ""
        own = ", ".join(
            f"{name} {score['value']:.3f}"
            for name, score in layer["scores"].items()
            if score["value"] is not None
        )
        score = "undefined" if layer["score"] is None else f"{layer['score']:.3f}"
        yield f"layer {layer['layer']}: score {score}{error} ({own})"


def chosen(out: Path) -> int:
    """Return the layer that a selection has chosen."""
    return int(_read(out)["best_llm_layer"])


def _read(out: Path) -> dict[str, Any]:
    """Return what a selection has found. `Raises:` CheckpointError: the file is damaged."""
    path = out / results.NAME
    try:
        found: dict[str, Any] = files.read_json(path)
        names = [list(layer["scores"]) for layer in found["layers"]]
        sound = (
            names
            and {"statement", "best_llm_layer"} <= found.keys()
            and int(found["best_llm_layer"]) >= 0
        )
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        sound = False
    if not sound:
        raise CheckpointError(manifest.fault(path, "unreadable", ANEW))
    return found


def with_layer(file: RunFile, layer: int) -> RunFile:
    """Return the run file with a number in place of `auto`; `resolved` stays what was asked for."""
    method = file.method
    config = layer_request.choice(file).chosen(method.config, layer)
    return dataclasses.replace(file, method=Part(method.name, method.module, config))


def select(
    file: RunFile,
    loaded: Material,
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
    positions = layer_request.draw(file, loaded.data)
    llm = file.method.config.llm
    with packages.kept_in(file.paths.cache):
        located = pretrained.locate(llm, file.method.config.revision, weights=False)
    key = layer_request.key(file, loaded, located)
    _check_free(out, key)
    folder = file.paths.cache / "selections" / key
    with packages.kept_in(file.paths.cache), files.alone(folder / "lock"):
        again = keep_states and (folder / results.NAME).is_file()  # they are not kept with it
        if again:
            (folder / results.NAME).unlink()
        if not (folder / results.NAME).is_file():
            request = layer_request.request(file, loaded, positions, located)
            facts = {**request.facts, "key": key}
            request = dataclasses.replace(
                request, facts=facts, keep_states=keep_states, notify=notify
            )
            on_cpu = request.device == "cpu"
            with allocation.kept() if on_cpu else contextlib.nullcontext():
                surveys.carry_out(request, layer_request.settings(file), folder)
        else:
            notify(f"the selection in {folder} is used again: nothing that matters has changed")
        return _copy(folder, out)


def _check_free(out: Path, key: str) -> None:
    """Refuse a folder with something else in it.

    Raises:
        ConfigError: there is another selection, or something that is none.
    """
    if not out.is_dir() or not any(out.iterdir()):
        return
    path = out / results.NAME
    if path.is_file() and _read(out).get("key") == key:
        return
    what = "another selection" if path.is_file() else "something that is no selection"
    raise ConfigError(f"{out} holds {what}.", ANOTHER, kind="taken", given=str(out))


def _copy(folder: Path, out: Path) -> dict[str, Any]:
    """Bring the results of a selection to `out`, selection.json last, and its states if it has kept them."""
    out.mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.name not in (results.NAME, "lock"):
            shutil.copyfile(path, out / path.name)
    if (folder / surveys.KEPT).is_dir():
        shutil.rmtree(out / surveys.KEPT, ignore_errors=True)
        shutil.move(folder / surveys.KEPT, out / surveys.KEPT)
    found = _read(folder)
    files.write_json(out / results.NAME, found)
    return found


def shown(out: Path) -> Shown | None:
    """Return a selection's table and pictures for trackers, or None where there is no selection."""
    if not (out / results.NAME).is_file():
        return None
    found = _read(out)
    names = list(found["layers"][0]["scores"])
    rows = [
        [layer["layer"], layer["score"], *(layer["scores"][name]["value"] for name in names)]
        for layer in found["layers"]
    ]
    pictures = sorted(out.glob("*.png"))
    return Shown("selection", ("layer", "score", *names), rows, pictures)


def survey(
    file: RunFile,
    out: Path,
    *,
    keep_states: bool = False,
    notify: Callable[[str], None] = log.info,
) -> dict[str, Any]:
    """Return the selection for a run file, without a run: written into `out`, and shown to its trackers.

    Raises:
        ConfigError, DataError, ModelError: as `select` does.
    """
    loaded = material.load(file)
    found = select(file, loaded, out, keep_states=keep_states, notify=notify)
    if table := shown(out):
        with Trackers(file.tracking, out) as trackers:
            trackers.start({"config": file.resolved, "model": found["statement"]})
            trackers.show(table)
            trackers.finish({"best_llm_layer": found["best_llm_layer"]})
    return found
