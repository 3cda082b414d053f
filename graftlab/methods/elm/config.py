"""What a run file says of ELM."""

from typing import Literal

from pydantic import Field

from graftlab.config import Section


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
