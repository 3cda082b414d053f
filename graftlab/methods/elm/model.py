"""A frozen language model that reads vectors through an adapter; importing this registers it.

    tokens = E_0(input_ids), but E_A(vector) where `vector_mask` is 1    logits = M_0(tokens)

The LLM is not saved: the config names it, and `from_pretrained` opens it again once the adapter is filled.
"""

# Shapes: N rows, L tokens, D numbers of a vector, K tokens of a vector, H numbers of a token.

from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationMixin,
    PreTrainedConfig,
    PreTrainedModel,
)

from graftlab.adapters import inner_lora
from graftlab.errors import ModelError
from graftlab.methods.elm import language_model
from graftlab.methods.elm.adapter import Adapter, Form


class ElmConfig(PreTrainedConfig):
    """What stands in the `config.json` of a saved model."""

    model_type = "elm"

    llm: dict[str, Any] | None = None
    """The language model: see `language_model.named`."""
    vectors: dict[str, Any] | None = None
    """What it reads: `width`, `num_tokens` of a vector, and `origin`, what vectors were made with."""
    hidden: int = 4096
    """Values between the adapter's two layers."""
    token_width: int = 2560
    """Numbers of a token of the LLM."""
    dropout: float = 0.1
    """Dropout behind each of the two layers."""
    residual: float = 1.0
    """How much of the vector is added to what the layers make of it."""
    train_residual: bool = False
    """That factor is a weight."""
    lora: dict[str, object] | None = None
    """Fields of peft's `LoraConfig` for the LLM; None: it has no LoRA."""
    lora_shapes: dict[str, list[int]] | None = None
    """Shapes of LoRA's weights by their names in the LLM, so that there is a place to read them into."""

    @property
    def form(self) -> Form:
        """What the adapter's weights depend on."""
        assert self.vectors is not None
        return Form(
            self.vectors["width"],
            self.hidden,
            self.token_width,
            self.vectors["num_tokens"],
            self.dropout,
            self.residual,
            self.train_residual,
        )


class ElmForCausalLM(PreTrainedModel, GenerationMixin):
    """A language model with an adapter for vectors. Without vectors it is the language model."""

    config_class = ElmConfig
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = True  # whatever the LLM says
    _supports_attention_backend = True
    _keep_in_fp32_modules_strict = ["adapter", "lora_A", "lora_B"]  # noqa: RUF012

    def __init__(self, config: ElmConfig, llm: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        self.adapter = Adapter(config.form)
        self.llm: Any = llm
        if llm is None and config.lora_shapes:  # until there is an LLM that they are weights of
            self.lora = _placed(config.lora_shapes)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Leave weights as they are: they are begun by `Adapter.begin`, or read."""

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """Return the saved adapter on its LLM, in eval mode.

        Raises:
            ModelError: the LLM cannot be read, or is not the one that the adapter was trained on.
        """
        found = super().from_pretrained(*args, **kwargs)
        model = found[0] if isinstance(found, tuple) else found
        if model.llm is None:
            model.plug_in(language_model.reopened(model.config.llm))
        return found

    def plug_in(self, llm: PreTrainedModel) -> None:
        """Put the LLM in its place, frozen and in eval mode, with the LoRA that was read."""
        place = next(self.adapter.parameters()).device
        llm.requires_grad_(False)
        if self.config.lora is not None:
            inner_lora.add(llm, self.config.lora)
            own = self.lora.state_dict()
            for name, weight in lora_of(llm).items():
                weight.data = own[name].float()
            del self.lora
        self.llm = llm.to(place).eval()
        if llm.generation_config is not None:
            self.generation_config = llm.generation_config

    def get_input_embeddings(self) -> Any:
        return None if self.llm is None else self.llm.get_input_embeddings()

    def get_output_embeddings(self) -> Any:
        return None if self.llm is None else self.llm.get_output_embeddings()

    def embed(
        self, input_ids: Tensor | None, vectors: Tensor, vector_mask: Tensor | None
    ) -> Tensor:
        """Return the tokens (N, L, H) of `input_ids` (N, L), of which those marked by `vector_mask` (N, L)
        are the adapter's, made of `vectors` (N, D).

        Raises:
            ModelError: vectors are of another width, or a row has not K places for its vector.
        """
        assert input_ids is not None, "a vector has its place among tokens"
        assert vector_mask is not None, "a vector has its place among tokens"
        form = self.config.form
        if vectors.shape[1] != form.width:
            raise ModelError(
                f"the vectors have {vectors.shape[1]} numbers, and the adapter reads {form.width}: they are "
                f"of another embedding model than it was trained with."
            )
        marked = vector_mask.bool()
        places = marked.sum(1)
        if not bool((places == form.num_tokens).all()):
            raise ModelError(
                f"each row has {form.num_tokens} places for its vector, and vector_mask marks "
                f"{places.tolist()}."
            )
        tokens_NLH = self.llm.get_input_embeddings()(input_ids)
        made_NKH = self.adapter(vectors.to(self.adapter.inner.weight.dtype))
        made = made_NKH.flatten(0, 1).to(tokens_NLH.dtype)
        return torch.index_put(tokens_NLH, marked.nonzero(as_tuple=True), made)

    def forward(
        self,
        input_ids: Tensor | None = None,
        vectors: Tensor | None = None,
        vector_mask: Tensor | None = None,
        **inputs: Any,
    ) -> Any:
        """Return what the LLM does; with `vectors` (N, D) of tokens that stand for them where `vector_mask`
        (N, L) is 1."""
        if vectors is None:
            return self.llm(input_ids=input_ids, **inputs)
        tokens_NLH = self.embed(input_ids, vectors, vector_mask)
        return self.llm(inputs_embeds=tokens_NLH, **inputs)

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor | None = None,
        vectors: Tensor | None = None,
        vector_mask: Tensor | None = None,
        **inputs: Any,
    ) -> Any:
        """Return what the LLM writes, `input_ids` in front, as its own `generate` does."""
        if vectors is not None:
            inputs["inputs_embeds"] = self.embed(input_ids, vectors, vector_mask)
        return self.llm.generate(input_ids=input_ids, **inputs)


def lora_of(llm: nn.Module) -> dict[str, nn.Parameter]:
    """Return the weights of an LLM's LoRA, by their names in it."""
    named = llm.named_parameters()
    return {name: p for name, p in named if ".lora_A." in name or ".lora_B." in name}


def _placed(shapes: dict[str, list[int]]) -> nn.Module:
    """Return modules within each other with weights of these names and shapes."""
    root = nn.Module()
    for name, shape in shapes.items():
        *path, last = name.split(".")
        module = root
        for part in path:
            if not hasattr(module, part):
                module.add_module(part, nn.Module())
            module = module.get_submodule(part)
        module.register_parameter(last, nn.Parameter(torch.empty(shape)))
    return root


AutoConfig.register("elm", ElmConfig, exist_ok=True)
AutoModelForCausalLM.register(ElmConfig, ElmForCausalLM, exist_ok=True)
