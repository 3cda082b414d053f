"""What a method promises, and the reason for whatever it does not."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Literal


@dataclass(frozen=True)
class Excused:
    """A promise that is not made, and why: as the end of a sentence, without its full stop."""

    reason: str

    def __bool__(self) -> Literal[False]:
        return False


Promise = Literal[True] | Excused


@dataclass(frozen=True)
class Promises:
    """What a method keeps. All of it is promised unless it says otherwise, and all of it is tested."""

    starts_unchanged: Promise = True
    """Before the first step the adapted model puts out what the backbone does."""
    freezes_backbone: Promise = True
    """Nothing of the backbone trains but its head."""
    mergeable: Promise = True
    """`merge` returns a plain model that puts out the same."""
    turns_off: Promise = True
    """Within `off` the model is the backbone, bit for bit."""
    reloads_exactly: Promise = True
    """What is saved and loaded puts out the same bits."""
    quantized: Promise = Excused("it does not say that it can stand on weights of 4 or 8 bits")
    """It fits frozen weights of 4 and 8 bits. Where that depends on its fields, see `on_quantized`."""
    not_backbones: Mapping[str, str] = field(default_factory=dict)
    """Kinds of backbone that it does not fit, each with the reason."""
    not_architectures: Mapping[str, str] = field(default_factory=dict)
    """Architectures (`model_type` of a model's config.json) that it does not fit, each with the reason."""
    not_problems: Mapping[str, str] = field(default_factory=dict)
    """Kinds of problem (`classes`, `regression`, `tokens`) that it does not fit, each with the reason."""
    steers: bool = False
    """It decides from gradients or replaces weights while it trains, which needs them whole."""
    virtual_tokens: bool = False
    """It puts tokens of its own in front of each row, so that a row must be one example."""
    reads_vectors: bool = False
    """It is for tasks whose rows stand for vectors (`TaskKind.VECTORS`), and for no others."""

    usual_rates: tuple[float, float] = (1e-5, 1e-2)
    """Peaks of the learning rate, from and to, at which it usually trains with Adam; `graftlab check` says
    where one is left. Those of low-rank adapters (Lee et al., 2026, arXiv 2602.04998, search 1e-5 to 6e-3)
    unless it says otherwise."""

    def excuses(self) -> dict[str, str]:
        """Return the promises that are not kept, each with the reason; not those that no method makes by
        default."""
        own = {f.name: getattr(self, f.name) for f in fields(self)}
        plain = {f.name: f.default for f in fields(self)}
        return {
            name: kept.reason
            for name, kept in own.items()
            if isinstance(kept, Excused) and kept != plain[name]
        }

    def misfit(self, backbone_kind: str, model_type: str | None = None) -> str | None:
        """Return why it does not fit a backbone; None where it does."""
        for kind, found in (
            (backbone_kind, self.not_backbones),
            (model_type, self.not_architectures),
        ):
            if kind is not None and kind in found:
                return found[kind]
        return None
