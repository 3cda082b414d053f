"""ELM: a frozen language model reads vectors of any embedding model, through an adapter that trains.

    tokens = E_0(prompt), and E_A(vector) in its place    logits = M_0(tokens)
    E_A(e) = LayerNorm(W2 GELU(W1 e + b1) + b2 + residual e)

Tennenholtz et al., 2024 (ICLR), arXiv 2310.04475. E_0 and M_0, embeddings and blocks of the LLM, are frozen.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from graftlab.contracts import Attached, Backbone, Excused, Promises, Setting
from graftlab.errors import ConfigError
from graftlab.methods.elm.config import Config

if TYPE_CHECKING:
    from torch import nn

    from graftlab.methods.elm.model import ElmForCausalLM

__all__ = ["PROMISES", "REGISTERS", "Config", "attach", "load", "save"]

PROMISES = Promises(
    starts_unchanged=Excused("the backbone reads no vectors"),
    mergeable=Excused("what a vector becomes is no change of the backbone's weights"),
    turns_off=Excused("without the adapter nothing stands in a vector's place"),
    quantized=True,
    not_backbones={
        "encoder": "it writes no text",
        "vision": "it writes no text",
    },
    not_problems={
        "classes": "the language model answers in words",
        "regression": "the language model answers in words",
    },
    reads_vectors=True,
)
REGISTERS = f"{__name__}.model"


def attach(backbone: Backbone, config: Config, setting: Setting) -> Attached:
    """Return the language model with a new adapter.

    Raises:
        ConfigError: the task's rows stand for no vectors.
    """
    from graftlab.methods.elm import assembly

    restored = (setting.restored or {}).get("vectors")
    vectors = restored or setting.vectors
    if vectors is None:
        raise ConfigError("method elm reads vectors, and the task has none. Take task.kind: elm.")
    described = assembly.described(backbone, config, vectors)
    model = assembly.build(backbone, described)
    assembly.begin(model, config, setting.seed, restored is not None)
    return Attached(model, record={"vectors": dict(vectors)})


def save(model: "ElmForCausalLM", folder: Path) -> None:
    """Write the adapter, and the config that names the language model and what the vectors were made with."""
    from graftlab.methods.elm import assembly

    assembly.save(model, folder)


def load(backbone: Backbone, config: Config, folder: Path) -> "nn.Module":
    """Return the backbone with the saved adapter.

    Raises:
        ModelError: a file is missing or damaged, or belongs to another backbone.
    """
    from graftlab.methods.elm import assembly

    return assembly.load(backbone, folder)
