"""ELM: a frozen language model reads vectors of any embedding model, through an adapter that trains.

    tokens = E_0(prompt), and E_A(vector) in its place    logits = M_0(tokens)
    E_A(e) = LayerNorm(W2 GELU(W1 e + b1) + b2 + residual e)

Tennenholtz et al., 2024 (ICLR), arXiv 2310.04475. E_0 and M_0, embeddings and blocks of the LLM, are frozen,
or M_0 has LoRA.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from graftlab.contracts import Attached, Backbone, Excused, Promises, Served, Setting
from graftlab.errors import ConfigError
from graftlab.methods.elm.config import Config

if TYPE_CHECKING:
    from torch import nn

    from graftlab.methods.elm.model import ElmForCausalLM

__all__ = ["PROMISES", "REGISTERS", "Config", "attach", "load", "save", "served"]

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
        ConfigError: the task's rows stand for no vectors, or a loss compares what has another width.
    """
    from graftlab.methods.elm import assembly
    from graftlab.methods.elm.losses import Losses
    from graftlab.methods.elm.watch import Watch

    restored = (setting.restored or {}).get("vectors")
    vectors = restored or setting.vectors
    if vectors is None:
        raise ConfigError("method elm reads vectors, and the task has none. Take task.kind: elm.")
    described = assembly.described(backbone, config, vectors)
    adds = config.drift != "none" or config.contrastive > 0
    if adds and vectors["width"] != described.token_width:
        raise ConfigError(
            f"method.drift and method.contrastive compare vectors with tokens, but the vectors have "
            f"{vectors['width']} numbers and the tokens {described.token_width}. Leave them out.",
            kind="conflict",
        )
    model = assembly.build(backbone, described, setting.seed)
    assembly.begin(model, config, setting.seed, restored is not None)
    hooks = (*([Losses(config)] if adds else ()), Watch())
    return Attached(model, hooks, record={"vectors": dict(vectors)})


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


def served(model: "ElmForCausalLM") -> Served:
    """Return what a server needs that has the language model and knows no vectors."""
    from graftlab.methods.elm import assembly

    return assembly.served(model)
