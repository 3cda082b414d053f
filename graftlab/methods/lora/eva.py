"""EVA: A starts from the main directions of each layer's inputs, and layers share out the ranks.

Paischer et al., 2024, arXiv 2410.07170. Stock peft computes it; here stands what it needs of the run.
"""

# Shapes: N examples, L tokens, I in features.

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from graftlab import adapters
from graftlab.adapters import low_rank
from graftlab.contracts import Attached, Backbone, Batch, Setting
from graftlab.errors import ConfigError

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor

SPREAD = (
    2.0  # rho of the paper: a layer may get up to this many times the mean rank (peft's default)
)
MAX_BATCHES = 2000  # directions of real inputs settle within tens of batches
RECORDED = ("target_modules", "rank_pattern", "alpha_pattern")


def attach(backbone: Backbone, config: adapters.LowRank, setting: Setting) -> Attached:
    """Return the frozen backbone with A computed from the training inputs, and B zero.

    Raises:
        ConfigError: the inputs are too few, or the layers too small, for the rank.
    """
    from peft import EvaConfig, LoraConfig

    fields = low_rank.fields(backbone, config, True) | {"eva_config": EvaConfig(rho=SPREAD)}
    if setting.restored is not None:
        fields |= {name: setting.restored[name] for name in RECORDED}
        model = adapters.attach(
            backbone, adapters.make_config(LoraConfig, fields, config.peft), setting.seed
        )
        model.peft_config[adapters.ADAPTER].__dict__["init_lora_weights"] = "eva"
    else:
        fields["init_lora_weights"] = "eva"
        peft_config = adapters.make_config(LoraConfig, fields, config.peft)
        model = adapters.attach(backbone, peft_config, setting.seed)
        with adapters.drawing(setting.seed):
            _initialise(model, setting, config.rank)
    written = adapters.config_dict(model)
    return Attached(
        model,
        rates=low_rank.rates(model, config),
        computed=adapters.random_frozen(model),
        record={name: written[name] for name in RECORDED},
    )


def _initialise(model: "PeftModel", setting: Setting, rank: int) -> None:
    """Set A, and each layer's rank.

    Raises:
        ConfigError: see `attach`.
    """
    from peft.tuners.lora.eva import initialize_lora_eva_weights

    wanted = round(rank * SPREAD)
    narrow = [n for n, m in low_rank.lora_layers(model).items() if m.in_features < wanted]
    if narrow:
        raise ConfigError(
            f"method.rank is {rank}: init eva looks for {wanted} directions in each layer's inputs, but "
            f"{narrow[0]} has fewer inputs. Lower method.rank or leave that layer out of method.targets."
        )
    initialize_lora_eva_weights(
        model,
        _Inputs(setting, wanted),
        forward_fn=lambda adapted, inputs: adapted(**inputs),
        prepare_model_inputs_fn=lambda inputs, _: inputs.get("attention_mask"),
        prepare_layer_inputs_fn=_tokens,
        show_progress_bar=False,
    )


def _tokens(
    layer_input: "Tensor | tuple[Tensor] | list[Tensor]", mask_NL: "Tensor | None", name: str
) -> "Tensor":
    """Return the layer's inputs as rows (N L, I), without those of padding."""
    x: Tensor = layer_input[0] if isinstance(layer_input, tuple | list) else layer_input
    if mask_NL is not None and x.dim() == 3 and x.shape[:2] == mask_NL.shape:
        return x[mask_NL.bool()]
    return x.reshape(-1, x.shape[-1]).contiguous()


class _Inputs:
    """The training inputs in run order, over and over, in batches of at least `num_examples`.

    Fewer would leave layers behind a pooler with less rows than directions, and peft would wait forever.
    """

    def __init__(self, setting: Setting, num_examples: int) -> None:
        self.setting, self.num_examples = setting, num_examples

    def __len__(self) -> int:
        return MAX_BATCHES

    def __iter__(self) -> Iterator[Batch]:
        waiting: list[Mapping[str, Tensor]] = []
        made = 0
        while made < MAX_BATCHES:
            seen = False
            for batch in self.setting.batches():
                seen = True
                waiting.append({name: x for name, x in batch.items() if name != "labels"})
                if sum(len(next(iter(b.values()))) for b in waiting) >= self.num_examples:
                    yield _join(waiting)
                    made, waiting = made + 1, []
            if not seen:
                raise ConfigError("method.init eva needs training examples, and there are none.")
        raise ConfigError(
            f"method.init eva: the directions of the inputs have not settled in {MAX_BATCHES} batches. "
            "Lower method.rank, or choose another method.init."
        )


def _join(batches: "list[Mapping[str, Tensor]]") -> "dict[str, Tensor]":
    """Return one batch of all examples; shorter ones are padded at the end, where the mask is zero."""
    import torch
    from torch.nn.functional import pad

    joined = {}
    for name in batches[0]:
        parts = [batch[name] for batch in batches]
        if parts[0].dim() == 2:
            length = max(part.shape[1] for part in parts)
            parts = [pad(part, (0, length - part.shape[1])) for part in parts]
        joined[name] = torch.cat(parts)
    return joined
