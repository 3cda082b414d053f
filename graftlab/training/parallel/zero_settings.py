"""What DeepSpeed is told: its own file, or accelerate's variables, without what the run file says."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab.errors import ConfigError
from graftlab.rundir import files

if TYPE_CHECKING:
    from graftlab.training.config import Config

PREFIX = "ACCELERATE_DEEPSPEED_"
OF_THE_RUN = ("optimizer", "scheduler", "fp16", "bf16", "amp", "torch_autocast", "data_types")
COUNTED = (
    *("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps"),
    *("gradient_clipping", "steps_per_print"),
)
RECIPES = Path(__file__).parents[2]


def read(variables: Mapping[str, str]) -> dict[str, Any]:
    """Return DeepSpeed's settings: of its own file, or made of accelerate's.

    Raises:
        ConfigError: there is no such file, or it says what the run file says, or asks for offloading.
    """
    name = variables.get(f"{PREFIX}CONFIG_FILE", "")
    if name in ("", "none"):
        found: dict[str, Any] = {
            "zero_optimization": {
                "stage": int(variables.get(f"{PREFIX}ZERO_STAGE", "2")),
                **{
                    key: {"device": variables.get(f"{PREFIX}{key.upper()}_DEVICE", "none")}
                    for key in ("offload_optimizer", "offload_param")
                },
            }
        }
    else:
        path = next((p for p in (Path(name), RECIPES / name) if p.is_file()), None)
        if path is None:
            raise ConfigError(f"deepspeed_config_file: there is no {name}.")
        try:
            found = files.read_json(path)
        except ValueError as error:
            raise ConfigError(f"{path} is no JSON: {error}.") from error
    for key in OF_THE_RUN:
        section = found.pop(key, {})
        if section and section.get("enabled", True) is True:
            raise ConfigError(
                f"DeepSpeed's config has a section {key!r}, but the run file says that: see training. "
                f"Leave it out."
            )
    zero = {k: v for k, v in found.get("zero_optimization", {}).items() if v != "auto"}
    for key in ("offload_optimizer", "offload_param"):
        if zero.pop(key, {}).get("device", "none") != "none":
            raise ConfigError(
                f"DeepSpeed's {key} is not supported. Leave it out, and use more processes or gradient "
                f"checkpointing."
            )
    kept = {k: v for k, v in found.items() if k not in COUNTED and v != "auto"}
    return kept | {"zero_optimization": zero}


def of_run(settings: Mapping[str, Any], config: "Config", world: int) -> dict[str, Any]:
    """Return a launcher's settings with those that the run file says.

    DeepSpeed counts micro-batches to know when a step ends. Here the loop says when: a step is one of them.
    """
    return {
        **settings,
        "train_micro_batch_size_per_gpu": 1,
        "managed_gradient_accumulation": False,
        "train_batch_size": world,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": config.clip_norm,
        "torch_autocast": {
            "enabled": config.precision == "bf16",
            "dtype": "bfloat16",
            "lower_precision_safe_modules": [],  # sums in float32
        },
        "steps_per_print": 2**31,
        "zero_allow_untested_optimizer": True,
    }
