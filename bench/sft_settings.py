"""What every contestant of a fine-tuning is told, and the run file that says it to graftlab."""

from dataclasses import asdict, dataclass
from typing import Any

PROMPT, COMPLETION = "Question: {question}\nAnswer:", " {answer}"
LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
HELD_OUT = 100


@dataclass(frozen=True)
class Settings:
    model: str
    """Folder of a Llama."""
    data: str
    """Folder with train.jsonl and validation.jsonl: `question`, `answer`."""
    rows: int = 600
    batch_size: int = 8
    max_length: int = 512
    learning_rate: float = 1e-3
    rank: int = 8
    alpha: int = 16
    seed: int = 0
    precision: str = "fp32"
    """fp32; or bf16, in which the frozen weights are stored too."""
    bits: int = 0
    """4: the frozen weights are held in 4 bits (nf4, double)."""
    attention: str = ""
    """A kernel of transformers; empty: as transformers chooses."""

    def public(self) -> dict[str, Any]:
        """Return the settings without folders, which are the machine's own affair."""
        found = asdict(self)
        return {key: v for key, v in found.items() if key not in ("model", "data") and v != ""}


def run_file(settings: Settings, packing: str = "none") -> dict[str, Any]:
    """Return the run file, with everything said that could differ from the peers."""
    dtype = "bfloat16" if settings.precision == "bf16" else "float32"
    backbone: dict[str, Any] = {"kind": "decoder", "model": settings.model, "dtype": dtype}
    if settings.attention:
        backbone["attention"] = settings.attention
    if settings.bits:
        backbone["quantization"] = {
            "bits": settings.bits,
            "type": "nf4",
            "double": True,
            "compute_dtype": dtype,
        }
    return {
        "seed": settings.seed,
        "backbone": backbone,
        "task": {
            "kind": "generation",
            "data_dir": settings.data,
            "prompt": PROMPT,
            "completion": COMPLETION,
            "max_length": settings.max_length,
            "packing": packing,
            "metrics": ["perplexity"],
        },
        "method": {
            "name": "lora",
            "rank": settings.rank,
            "alpha": settings.alpha,
            "dropout": 0.0,
            "targets": list(LAYERS),
        },
        "training": {
            "epochs": 1,
            "batch_size": settings.batch_size,
            "learning_rate": settings.learning_rate,
            "schedule": {"name": "linear", "warmup": 0},
            "optimizer": {"weight_decay": 0.0},
            "precision": settings.precision,
            "logging_every": 1,  # so that timing.jsonl has every step; others write far less
        },
    }
