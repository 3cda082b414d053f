"""One selection carried out in a folder of its own, from its start or from where a killed process was."""

import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from graftlab import plots
from graftlab.contracts import LayerScore, Plot
from graftlab.errors import ConfigError
from graftlab.rundir import files
from graftlab.selection import examples, hidden_states, plug, results, space
from graftlab.selection.choice import choose
from graftlab.selection.request import Config
from graftlab.selection.results import Row
from graftlab.selection.scores import Sample, Undefined
from graftlab.selection.scores.pc_label_correlation import correlations
from graftlab.spectra import threads

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from graftlab.contracts.arrays import Floats, Integers
    from graftlab.weights.layers import Checkpoint


log = logging.getLogger("graftlab")

# Shapes: N examples, D values of a state.

ROWS, KEPT = "rows", "states"


@dataclass(frozen=True)
class Request:
    """What is asked, beside the settings."""

    checkpoint: "Checkpoint"
    """What `graftlab.weights.layers.open` returns."""
    tokenizer: "PreTrainedTokenizerBase"
    examples: examples.Examples
    facts: Mapping[str, object]
    """What selection.json says of the task and the models."""
    find: Callable[[str], LayerScore]
    """Returns the module behind a score's name."""
    scores: Sequence[str]
    """Names of all scores, those that count and those that are only reported."""
    plots: Mapping[str, Plot] = field(default_factory=dict)
    """What is drawn in the end, by name."""
    device: str = "cpu"
    keep_states: bool = False
    """Keep each scored layer's pooled states."""
    notify: Callable[[str], None] = log.info


def scored_layers(config: Config, num_layers: int) -> list[int]:
    """Return the layers to choose from.

    Raises:
        ConfigError: one of them is not in the model.
    """
    if wrong := [layer for layer in config.layers if layer >= num_layers]:
        raise ConfigError(
            f"method.selection.layers: there is no layer {wrong[0]}; the model has layers 0 to "
            f"{num_layers - 1}.",
            kind="out_of_range",
        )
    return list(config.layers) or list(range(num_layers))


def carry_out(request: Request, config: Config, folder: Path) -> dict[str, object]:
    """Return the selection, which `folder` holds from then on (`selection.json` is written last).

    Raises:
        ConfigError: a layer to choose from is not in the model.
        DataError: at every layer a score that counts is undefined.
        ModelError: a layer cannot be read.
    """
    began = time.perf_counter()
    layers = scored_layers(config, request.checkpoint.num_layers)
    (folder / ROWS).mkdir(parents=True, exist_ok=True)
    tokens = hidden_states.tokenize(
        request.examples.texts, request.examples.pairs, request.tokenizer, config.max_length
    )
    stream = hidden_states.Stream(
        request.checkpoint, tokens, folder, pooling=config.pooling, dtype=config.dtype,
        device=request.device, notify=request.notify,
    )  # fmt: skip
    if request.checkpoint.remote:
        _announce(request.checkpoint, layers[-1])
    _score(request, config, stream, layers)
    rows = [Row(**files.read_json(_row_file(folder, layer))) for layer in layers]
    values = {name: results.values(rows, name) for name in request.scores}
    choice = choose(layers, values, request.checkpoint.num_layers, config)
    facts = {
        **request.facts,
        "num_layers": request.checkpoint.num_layers,
        "examples": {
            name: int((request.examples.labels == c).sum())
            for c, name in enumerate(request.examples.classes)
        },
        "truncated": tokens.truncated,
        "tokens": int(sum(mask.sum() for mask in tokens.masks)),
        "bytes_read": request.checkpoint.bytes_read,
        "seconds": round(time.perf_counter() - began, 1),
    }
    scored = results.Scored(layers, rows, values, choice)
    found = results.selection(scored, config, facts)
    drawn = results.selected(scored, config, request.examples)
    plots.draw(request.plots, drawn, f"{Path(str(facts['llm'])).name}, {facts['dataset']}", folder)
    results.write(folder, found)
    (folder / hidden_states.STATES).unlink(missing_ok=True)
    shutil.rmtree(folder / ROWS)
    return found


def _row_file(folder: Path, layer: int) -> Path:
    return folder / ROWS / f"{layer:04}.json"


def _score(
    request: Request, config: Config, stream: hidden_states.Stream, layers: Sequence[int]
) -> None:
    """Write each layer's row, while the next layer computes.

    A row is there before the layer after its own counts as the place to go on from.
    """
    scoring, folder = Scoring(request, config), stream.folder
    left = {layer for layer in layers if not _row_file(folder, layer).is_file()}

    def write(number: int, after: "Floats", plugged: "list[Floats]") -> None:
        files.write_json(_row_file(folder, number), scoring.row(number, after, plugged)._asdict())

    # Scores are many small products, whose threads would wait in turns with those of the layer that computes:
    # on two cores a selection took twice as long.
    with threads.one(), ThreadPoolExecutor(1, thread_name_prefix="scores") as worker:
        writing: Future[None] | None = None
        for computed in stream.run(layers[-1], again=left.__contains__):
            if writing:
                writing.result()
            if computed.number in left:
                plugged = scoring.plugged(computed)
                writing = worker.submit(write, computed.number, computed.after, plugged)
                if request.keep_states:
                    _keep(folder / KEPT, computed, request.examples.labels)
            del computed  # it holds the layer, and the next but one is about to be read
        if writing:
            writing.result()


def _announce(checkpoint: "Checkpoint", last: int) -> None:
    """Say how much will be read over the network before it is."""
    num_bytes = sum(checkpoint.layer_bytes(index) for index in range(last + 1))
    log.warning(
        "%s bytes are read of %s, layers 0 to %d one after the other, and none is kept; how long that "
        "takes is said after the first",
        f"{num_bytes:,}", checkpoint.source, last,
    )  # fmt: skip


class Scoring:
    """All scores of one layer after another, on the same folds and bootstrap samples."""

    def __init__(self, request: Request, config: Config) -> None:
        labels_N = request.examples.labels
        self.request, self.config = request, config
        self.folds_N = examples.folds(labels_N, config.folds, config.seed)
        self.weights_BN = examples.resamples(labels_N, config.resamples, config.seed)

    def plugged(self, computed: hidden_states.Computed) -> "list[Floats]":
        """Return the encoder's vectors after a layer that is still in memory, for each fold."""
        return plug.plug(
            self.request.examples.encoded, computed.before, self.folds_N, computed.layer,
            self.config.projection, self.config.seed,
        )  # fmt: skip

    def row(self, number: int, after: "Floats", plugged: "list[Floats]") -> Row:
        """Return all scores of a layer by the pooled states that came out of it."""
        config, labels_N = self.config, self.request.examples.labels
        sample = Sample(
            space.shorten(space.unit_length(after)),
            labels_N,
            self.folds_N,
            config.components if config.space == "pca" else None,
            config.components,
            config.top_components,
            plugged,
            config.seed,
        )
        values: dict[str, list[float] | None] = {}
        reasons: dict[str, str] = {}
        for name in self.request.scores:
            try:
                values[name] = self.request.find(name).score(sample, self.weights_BN).tolist()
            except Undefined as reason:
                values[name], reasons[name] = None, str(reason)
                log.warning("layer %d: %s is undefined: %s", number, name, reason)
        try:
            plane, shown = sample.mapped[:, :2].tolist(), self._correlations(sample)
        except Undefined:
            plane, shown = [], []
        return Row(number, values, reasons, shown, plane)

    def _correlations(self, sample: Sample) -> list[float]:
        found: list[float] = correlations(sample.mapped, sample.labels, self.weights_BN[:1])[
            0
        ].tolist()
        return found


def _keep(folder: Path, computed: hidden_states.Computed, labels_N: "Integers") -> None:
    """Write a layer's pooled states, as they came out of it: not scaled, in the order of the examples."""
    import torch

    folder.mkdir(exist_ok=True)
    tensors = {"states": torch.from_numpy(computed.after), "labels": torch.from_numpy(labels_N)}
    files.save_tensors(folder / f"layer-{computed.number:04}.safetensors", tensors)
