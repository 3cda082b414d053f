"""What a run asks of a selection: examples of its task, and what its method would plug in."""

import hashlib
import json
from typing import TYPE_CHECKING, Any

from graftlab import registry
from graftlab.contracts import Data, LayerChoice
from graftlab.contracts.plot import SELECTION
from graftlab.errors import ConfigError, ModelError
from graftlab.runfile import RunFile
from graftlab.runs.material import Material
from graftlab.selection import examples, survey
from graftlab.selection.request import Config
from graftlab.weights import pretrained

if TYPE_CHECKING:
    from graftlab.contracts.arrays import Floats, Integers

BATCH = 32  # examples that go through the encoder at once
FORMAT = 2  # of what a selection computes: a new number forgets the selections of old


def settings(file: RunFile) -> Config:
    """Return how a run file's method selects.

    Raises:
        ConfigError: it plugs in no layer.
    """
    config = file.method.config.selection if file.method.module.LAYER else None
    if not isinstance(config, Config) or not file.method.config.llm:
        raise ConfigError(
            f"the method {file.method.name!r} of this run file plugs in no layer of a large model, so "
            f"there is none to select. Choose method pifi, with an llm.",
            kind="no_layer",
        )
    return config


def choice(file: RunFile) -> LayerChoice[Any]:
    """Return how a run file's method lets a layer be chosen; it is one that does."""
    assert file.method.module.LAYER is not None
    return file.method.module.LAYER


def draw(file: RunFile, data: Data) -> "Integers":
    """Return the positions of the training examples that are looked at.

    Raises:
        ConfigError: the task has no classes or texts.
        DataError: its examples cannot tell layers apart.
    """
    return examples.draw(_labels(data), data.problem.labels, settings(file))


def request(
    file: RunFile, loaded: Material, positions: "Integers", located: pretrained.Located
) -> survey.Request:
    """Return what is asked: the drawn examples, as texts and as the method's vectors, and the large model.

    Raises:
        ModelError: the large model cannot be read.
    """
    import torch

    from graftlab.weights import layers

    rows = [loaded.data.splits["train"][int(position)] for position in positions]
    checkpoint = layers.open(located.source, revision=located.revision, keep=False)
    drawn = examples.Examples(
        [row["text"] for row in rows],
        [row.get("pair") for row in rows],
        _labels(loaded.data)[positions],
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
        drawn,
        facts,
        lambda name: registry.find("scores", name),
        registry.names("scores"),
        registry.having("plots", "DRAWS_FROM", SELECTION),
        "cuda" if torch.cuda.is_available() else "cpu",
    )


def _tokenizer(located: pretrained.Located) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(located.folder, trust_remote_code=False)
    except (ImportError, ValueError, OSError, KeyError, TypeError, RuntimeError) as error:
        raise ModelError(f"the tokenizer of {located.source} cannot be loaded: {error}") from error


def _vectors(file: RunFile, loaded: Material, positions: list[int]) -> "Floats":
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
            vectors_Bd = choice(file).vectors(loaded.backbone, batch, file.method.config)
            found.append(vectors_Bd.float().cpu().numpy())
    model.train(training)
    return np.concatenate(found).astype(np.float64)


def _labels(data: Data) -> "Integers":
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
    return np.array([row["label"] for row in data.splits["train"]])


def key(file: RunFile, loaded: Material, located: pretrained.Located) -> str:
    """Return a name for all that the selection depends on."""
    paths = sorted(located.folder.glob("*.safetensors")) if located.revision is None else []
    facts = {
        "format": FORMAT,
        "llm": [located.source, located.revision],
        # a folder has no revision: its files' times tell that they were written anew
        "weights": [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in paths],
        "selection": settings(file).model_dump(mode="json"),
        "data": loaded.data.record["fingerprint"]["train"],
        "encoder": [file.resolved["backbone"], loaded.backbone.record.get("sha256")],
        "vectors": choice(file).facts(file.method.config),
        "max_length": loaded.task.record.get("max_length"),
    }
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
