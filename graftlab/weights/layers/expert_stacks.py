"""Fill a layer whose tensors are stored otherwise than transformers holds them: experts one by one.

transformers' own conversion does it, as `from_pretrained` does.
"""

import contextlib
import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from graftlab.errors import ModelError
from graftlab.weights.layers.anatomy import Skeleton


def applies(skeleton: Skeleton) -> bool:
    """Return whether transformers merges or splits stored tensors of this family."""
    from transformers.core_model_loading import WeightConverter

    return any(isinstance(step, WeightConverter) for step in _steps(skeleton))


def fill(
    skeleton: Skeleton, index: int, block: nn.Module, tensors: Mapping[str, Tensor], where: str
) -> None:
    """Put stored tensors (by their names within the layer) into layer `index`, `block`.

    Raises:
        ModelError: some are missing or of another shape than config.json says.
    """
    from transformers.core_model_loading import convert_and_load_state_dict_in_model
    from transformers.modeling_utils import LoadStateDictConfig

    model = copy.copy(skeleton.model)
    before = [nn.Identity() for _ in range(index)]  # names keep the layer's number
    model._modules = {skeleton.list_name: nn.ModuleList([*before, block])}
    named = {f"{skeleton.list_name}.{index}.{name}": tensor for name, tensor in tensors.items()}
    dtype: torch.dtype = next(iter(tensors.values())).dtype
    with _without_bars():
        info, _ = convert_and_load_state_dict_in_model(
            model, named, LoadStateDictConfig(dtype=dtype, weight_mapping=_steps(skeleton))
        )
    wrong = [
        *info.missing_keys,
        *(key for key, *_ in info.mismatched_keys),
        *info.conversion_errors,
    ]
    if wrong:
        raise ModelError(
            f"layer {index} of {where} is not whole: {len(wrong)} tensors are missing or of another "
            f"shape than config.json says, {min(wrong)} first.",
            kind="incomplete",
        )


def _steps(skeleton: Skeleton) -> list[Any]:
    from transformers.conversion_mapping import get_model_conversion_mapping

    return list(get_model_conversion_mapping(skeleton.model))


@contextlib.contextmanager
def _without_bars() -> Iterator[None]:
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
