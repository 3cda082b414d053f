"""What a run file says of ELM."""

from typing import Literal

from pydantic import Field, model_validator

from graftlab.adapters.inner_lora import Lora
from graftlab.config import Conflict, Section


class Config(Section):
    """An adapter from vectors to tokens."""

    hidden: int = Field(4096, ge=1)
    """Values between the adapter's two layers."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Share of the values behind each of the two layers that is zeroed in training."""
    residual: float = Field(1.0, ge=0)
    """How much of the vector itself is added to what the layers make of it; where its width is not that of
    the LLM's tokens, through a matrix that trains."""
    train_residual: bool = False
    """Let that factor train too."""
    start: Literal["he", "identity", "source"] = "he"
    """How the layers begin: He's initialisation; with a second layer of zeros, so that the vector alone goes
    through; or as the source has it, three times He's."""
    norm: Literal["tokens", "source"] = "tokens"
    """Gain that the last norm begins with: what makes a vector's tokens as long as the LLM's own are in the
    median; or 1, as the source has it, which is some tens of times longer."""
    llm: Literal["frozen", "lora"] = "frozen"
    """What trains of the language model: nothing, or LoRA, as in the second stage of the paper."""
    lora: Lora = Lora()
    """The LoRA of `llm: lora`."""
    drift: Literal["none", "adapter", "hidden"] = "none"
    """A loss that keeps what is made of a vector close to it, where both have one width: the adapter's
    output, up to the cosine `drift_target`; or, as the source has it, the mean of the LLM's last states."""
    drift_weight: float = Field(0.03, gt=0)
    """By what the drift is multiplied."""
    drift_target: float = Field(0.75, gt=0, le=1)
    """Cosine of output and vector from which on the drift of the adapter is 0."""
    contrastive: float = Field(0.0, ge=0)
    """Weight of InfoNCE, by which each output is told from the other vectors of its micro-batch; 0: none."""
    temperature: float = Field(0.07, gt=0)
    """By what the cosines of InfoNCE are divided."""

    @model_validator(mode="after")
    def _nothing_is_idle(self) -> "Config":
        idle = [
            ("lora", self.llm != "lora", f"llm {self.llm}"),
            ("drift_weight", self.drift == "none", "drift none"),
            ("drift_target", self.drift != "adapter", f"drift {self.drift}"),
            ("temperature", not self.contrastive, "contrastive 0"),
        ]
        for name, unused, why in idle:
            if unused and getattr(self, name) != type(self).model_fields[name].default:
                raise Conflict(name, f"{name} has no effect with {why}")
        if self.start == "identity" and not self.residual:
            raise Conflict("residual", "residual 0 with start identity lets nothing through")
        if self.train_residual and not self.residual:
            raise Conflict("residual", "residual 0 has nothing that could train")
        return self
