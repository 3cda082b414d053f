"""What a method provides: its Protocol, and how it lets a layer be chosen and an adapted model be served.

What is abstract, or has no value, a module must have; the rest it may leave out.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar

from graftlab.contracts.promises import Excused, Promise, Promises
from graftlab.contracts.records import Attached, Backbone, Batch, Setting
from graftlab.errors import Fault, ModelError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from graftlab.config import Section

# `graftlab --help` reads this file, and not pydantic, of which a Section is made
C = TypeVar("C", bound="Section")


@dataclass(frozen=True)
class LayerChoice(Generic[C]):
    """How a method that plugs in a layer of a large model lets `graftlab select` choose it.

    Its section has `llm`, `revision` and `selection` besides.
    """

    wanted: Callable[[C], bool]
    """Says whether a layer is still to be chosen (`layer: auto`)."""
    chosen: Callable[[C, int], C]
    """Returns the section with the layer that was chosen."""
    vectors: "Callable[[Backbone, Batch, C], Tensor]"
    """Returns (B, d) what the encoder as it is now would plug in."""
    facts: Callable[[C], Sequence[object]]
    """Returns what of the section the vectors depend on, as JSON."""


class Served(NamedTuple):
    """A language model that reads tokens made by an adapter, as a server has it that knows no adapter."""

    model: str
    """The LLM's hub id or folder."""
    revision: str | None
    embed: "Callable[[Batch], Tensor]"
    """Returns the tokens (N, L, H) that the LLM reads of a batch."""
    lora: "tuple[dict[str, object], dict[str, Tensor]] | None"
    """Config and weights of the plain LoRA that the LLM has besides."""


class Method(Protocol):
    """How a backbone is adapted: a module or package of `graftlab/methods`."""

    RETIRED: ClassVar[Mapping[str, str]] = dict.fromkeys(
        (
            *("STARTS_UNCHANGED", "FREEZES_BACKBONE", "MERGEABLE", "TURNS_OFF", "RELOADS_EXACTLY"),
            *("BACKBONES", "NOT_ARCHITECTURES", "PROBLEMS", "STEERS", "VIRTUAL_TOKENS"),
            "NOT_MERGED",
        ),
        "PROMISES = Promises(...), from graftlab.contracts, which names only what is not kept",
    ) | dict.fromkeys(
        ("wants_layer", "with_layer", "vectors"),
        "LAYER = LayerChoice(...), from graftlab.contracts",
    )

    Config: "type[Section]"
    """Its section of a run file: a frozen `Section`; unknown keys are refused with the nearest right one."""
    PROMISES: Promises = Promises()
    """What it keeps, and the reason for what it does not."""
    REGISTERS: str | None = None
    """Full name of the module that registers what `save` writes in PEFT or transformers; `import
    graftlab.auto` imports it."""
    LAYER: LayerChoice[Any] | None = None
    """How `graftlab select` chooses the layer that it plugs in."""

    @abstractmethod
    def attach(self, backbone: Backbone, config: "Section", setting: Setting) -> Attached:
        """Return the model with the adapter in place, and its hooks; `setting` holds the seed, the number of
        steps and the training batches."""

    @abstractmethod
    def save(self, model: "nn.Module", folder: Path) -> None:
        """Write what users load."""

    @abstractmethod
    def load(self, backbone: Backbone, config: "Section", folder: Path) -> "nn.Module":
        """Return the backbone with what was saved: the same outputs bit for bit."""

    def off(self, model: "nn.Module") -> AbstractContextManager[None]:
        """Return a `with` block in which the model is the backbone; needed for `turns_off`.

        Raises:
            ModelError: it cannot be turned off.
        """
        raise _cannot("turned off", self.PROMISES.turns_off)

    def merge(self, model: "nn.Module") -> "nn.Module":
        """Return the plain model with the adapter folded in; needed for `mergeable`.

        Raises:
            ModelError: it cannot be merged.
        """
        raise _cannot("merged", self.PROMISES.mergeable)

    deltas: "Callable[[nn.Module], Iterable[tuple[str, Any]]] | None" = None
    """Yields the name of each weight that it changes, and the change: dense, or as two factors."""
    to_lora: "Callable[[nn.Module], tuple[dict[str, object], dict[str, Tensor]]] | None" = None
    """Returns the config and the weights of plain LoRA, for `graftlab export`, where there is that form."""
    served: "Callable[[nn.Module], Served] | None" = None
    """Returns what a server of language models needs beside the LLM, for `graftlab export --format
    prompt-embeds`, where the adapter makes tokens that the LLM reads."""
    example: "Callable[[Path], Section] | None" = None
    """Returns a section for the contract tests, where the defaults want files from elsewhere: it writes
    small ones into the folder."""

    def check(
        self,
        config: "Section",
        backbone_kind: str,
        model_type: str | None,
        gradient_checkpointing: bool,
    ) -> list[Fault]:
        """Return problems (`graftlab.errors.wrong`) that can be found before anything is loaded."""
        return []

    def check_length(self, config: "Section", epochs: float, max_steps: int) -> list[Fault]:
        """Return problems of a run of that length, before anything is loaded; `epochs` counts where there are
        0 `max_steps`."""
        return []

    def on_quantized(self, config: "Section", bits: int) -> str | None:
        """Return why it does not fit frozen weights in 4 or 8 bits; None where it does."""
        kept = self.PROMISES.quantized
        return kept.reason if isinstance(kept, Excused) else None

    def planned(self, config: "Section") -> "Section":
        """Return a section of the same shapes that computes nothing from data, for `graftlab plan`."""
        return config


def _cannot(what: str, kept: Promise) -> ModelError:
    assert isinstance(kept, Excused), f"it promises to be {what}, and has no function for it"
    return ModelError(f"this method cannot be {what}: {kept.reason}.")
