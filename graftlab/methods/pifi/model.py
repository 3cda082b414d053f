"""An encoder with layers of a large decoder plugged in before its head; importing this registers it.

    p = pool(encoder(text))    logits = head(P_out layer(P_in p))    head = Linear, Dropout, GELU, Linear

Frozen donor layers are not saved: the config names them, and `from_pretrained` puts them in again once
transformers has filled the rest. Read in `__init__`, they would be on the meta device, and then random.
"""

# Shapes: B texts, T tokens, d the encoder's width, C classes.

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.configuration_utils import SubConfigSpec
from transformers.modeling_outputs import SequenceClassifierOutput

from graftlab.adapters import inner_lora
from graftlab.errors import ConfigError
from graftlab.methods.pifi import donors


class PifiConfig(PreTrainedConfig):
    """What stands in the `config.json` of a saved model."""

    model_type = "pifi"
    sub_configs_defaults = {  # noqa: RUF012  (as transformers has it)
        "encoder_config": SubConfigSpec(config_class=AutoConfig, model_type="bert")
    }

    encoder_config: Any = None
    """The encoder's own config."""
    plug: str = "layer"
    """`layer`, `random`, `mlp` or `none`."""
    plug_size: int | None = None
    """Width between P_in and P_out; None: there are no projections, and the head reads the encoder."""
    plug_mode: str = "pooled"
    """`pooled` or `sequence`."""
    pooling: str = "cls"
    """`cls`, `mean` or `mean_with_padding`."""
    pad_to: int | None = None
    """Tokens that every input is padded to before a mean with padding."""
    residual: bool = False
    """Add what goes into the plug-in to what comes out."""
    donor: dict[str, Any] | None = None
    """Model, revision, layers and their sha256, see `donors.Donor`."""
    train_layer: bool = False
    """The donor's layers train, and are saved."""
    lora: dict[str, object] | None = None
    """Fields of peft's `LoraConfig` for the encoder; None: it has no LoRA."""
    head_dropout: float = 0.2
    """Dropout inside the head."""

    @property
    def hidden_size(self) -> int:
        """The encoder's width."""
        size: int = self.encoder_config.hidden_size
        return size


class PifiForSequenceClassification(PreTrainedModel):
    """An encoder, P_in, a donor's layers, P_out and a head for classes or a score."""

    config_class = PifiConfig
    base_model_prefix = "encoder"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    # whatever the encoder says for itself
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = True
    _supports_attention_backend = True
    _keep_in_fp32_modules_strict = ["project_in", "project_out", "classifier", "lora_A", "lora_B"]  # noqa: RUF012

    def __init__(self, config: PifiConfig, encoder: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        encoder = AutoModel.from_config(config.encoder_config) if encoder is None else encoder
        self.encoder = without_pooler(encoder)
        width, plug = config.hidden_size, config.plug_size
        self.project_in = self.project_out = None
        if plug is not None:
            self.project_in = nn.Linear(width, plug, bias=False)
            self.project_out = nn.Linear(plug, width, bias=False)
        self.donor = nn.ModuleList()
        if config.train_layer and config.donor:  # saved with the rest, and so there to be filled
            self.donor.extend(donors.empty(donors.Donor(**config.donor), self._pooled))
        self.classifier = nn.Sequential(
            nn.Linear(width, width),
            nn.Dropout(config.head_dropout),
            nn.GELU(),
            nn.Linear(width, config.num_labels or 0),
        )
        self.post_init()
        if config.lora is not None:
            inner_lora.add(self.encoder, config.lora)

    def _init_weights(self, module: nn.Module) -> None:
        """Keep torch's own initialisation, as the source does."""

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """Return the saved model with its donor's layers, in eval mode.

        Raises:
            ModelError: the donor cannot be read, or is not what the model was trained with.
        """
        found = super().from_pretrained(*args, **kwargs)
        (found[0] if isinstance(found, tuple) else found).plug_in()
        return found

    @property
    def _pooled(self) -> bool:
        return self.config.plug_mode == "pooled"

    @property
    def _of_head(self) -> nn.Parameter:
        """A weight of the head, which is where and what all results are."""
        return next(self.classifier.parameters())

    def plug_in(self, layers: list[nn.Module] | None = None) -> None:
        """Put the donor's layers in their place: those given, or else as the config names them.

        Raises:
            ModelError: they cannot be read, or their hash is not the one in the config.
        """
        if self.config.donor is None:
            return
        donor = donors.Donor(**self.config.donor)
        if layers is None and self.config.train_layer:
            # filled by now, but made on the meta device, where their tables of positions were lost
            layers = donors.empty(donor, self._pooled)
            nn.ModuleList(layers).load_state_dict(self.donor.state_dict(), assign=True)
        self.donor = nn.ModuleList(donors.read(donor, self._pooled) if layers is None else layers)
        self.donor.to(self._of_head.device)
        self.donor.requires_grad_(self.config.train_layer)
        names = {f"donor.{name}" for name in self.donor.state_dict()}
        self._keys_to_ignore_on_save = set() if self.config.train_layer else names

    def get_input_embeddings(self) -> nn.Module:
        embeddings: nn.Module = self.encoder.get_input_embeddings()
        return embeddings

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        **inputs: Any,
    ) -> SequenceClassifierOutput:
        """Return logits (B, C), and the mean loss where there are labels (B).

        Raises:
            ConfigError: a mean with padding is wanted, and an input is longer than `pad_to`.
        """
        config = self.config
        inputs |= {"input_ids": input_ids, "attention_mask": attention_mask}
        inputs = {name: given for name, given in inputs.items() if given is not None}
        inputs.pop("return_dict", None)
        if config.pooling == "mean_with_padding":
            inputs = padded(inputs, config.pad_to, self.encoder.config.pad_token_id or 0)
        states_BTd = self.encoder(**inputs).last_hidden_state.to(self._of_head.dtype)
        mask_BT = inputs.get("attention_mask")
        if mask_BT is None:
            mask_BT = torch.ones(states_BTd.shape[:2], device=states_BTd.device, dtype=torch.long)
        if config.plug_mode == "sequence":
            pooled_Bd = pool(self._plugged(states_BTd, mask_BT), mask_BT, config.pooling)
        else:
            pooled_Bd = self._plugged(pool(states_BTd, mask_BT, config.pooling), None)
        logits = self.classifier(pooled_Bd)
        loss = None
        if labels is not None:
            loss = self.loss_function(labels=labels, pooled_logits=logits, config=config)
        return SequenceClassifierOutput(loss=loss, logits=logits)

    def _plugged(self, states: Tensor, mask_BT: Tensor | None) -> Tensor:
        """Return (B, d), or (B, T, d) with a mask, after the projections and what stands between them."""
        if self.project_in is None or self.project_out is None:
            return states
        assert self.config.donor is None or len(self.donor), "plug_in() was not called"
        inner = self.project_in(states)
        if self.config.plug == "mlp":
            inner = F.gelu(inner)
        layer: Any
        for layer in self.donor:
            inner = inner.to(next(layer.parameters()).dtype)
            inner = layer.pooled(inner) if mask_BT is None else layer(inner, mask_BT)
        out: Tensor = self.project_out(inner.to(self.project_out.weight.dtype))
        return states + out if self.config.residual else out


def without_pooler(encoder: Any) -> Any:
    """Take the pooler of BERT and its like away: it would be trained (or saved) and never used."""
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None
    return encoder


def pool(states_BTd: Tensor, mask_BT: Tensor, pooling: str) -> Tensor:
    """Return (B, d): the first token's state, or the mean over the tokens, padding with them or not."""
    if pooling == "mean_with_padding":
        return states_BTd.mean(dim=1)
    if pooling == "mean":
        weights_BT1 = mask_BT[:, :, None].to(states_BTd.dtype)
        return (states_BTd * weights_BT1).sum(dim=1) / weights_BT1.sum(dim=1)
    first_B = mask_BT.int().argmax(dim=1)  # 0 unless padding is on the left
    return states_BTd[torch.arange(len(states_BTd), device=states_BTd.device), first_B]


def padded(inputs: dict[str, Tensor], length: int | None, pad_token_id: int) -> dict[str, Tensor]:
    """Return the inputs (B, T) padded to `length` tokens: without, a mean would depend on the batch."""
    ids_BT = inputs["input_ids"]
    missing = (length or 0) - ids_BT.shape[1]
    if missing < 0:
        raise ConfigError(
            f"an input of {ids_BT.shape[1]} tokens is longer than method.pad_to ({length}). "
            f"Set task.max_length to at most {length}, or method.pad_to higher."
        )
    inputs.setdefault("attention_mask", torch.ones_like(ids_BT))
    return {
        name: F.pad(given, (0, missing), value=pad_token_id if name == "input_ids" else 0)
        for name, given in inputs.items()
    }


AutoConfig.register("pifi", PifiConfig, exist_ok=True)
AutoModelForSequenceClassification.register(
    PifiConfig, PifiForSequenceClassification, exist_ok=True
)
