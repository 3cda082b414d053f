"""Answers of an instruct model on this machine, one at a time, each drawn from its own seed."""

from graftlab.backbones._pretrained import quiet
from graftlab.errors import ModelError
from graftlab.seeds import seed_everything
from graftlab.synthesis.orders import Order
from graftlab.training import devices
from graftlab.weights import pretrained


class LocalModel:
    """An instruct model that is loaded."""

    def __init__(self, model: str, max_new_tokens: int = 512) -> None:
        """Load a model by alias, folder or hub id.

        Raises:
            ModelError: it cannot be found or loaded, or has no chat template.
        """
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._located = pretrained.locate(model)
        self._max_new_tokens = max_new_tokens
        folder = str(self._located.folder)
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            if not self._tokenizer.chat_template:
                said = f"{model} has no chat template: it was not trained to follow instructions."
                raise ModelError(
                    said, ("Name an instruct model.",), kind="no_template", given=model
                )
            device = devices.accelerator("fp32").device
            with quiet():
                loaded = AutoModelForCausalLM.from_pretrained(
                    folder, local_files_only=True, use_safetensors=True, dtype="auto"
                )
        except (OSError, ValueError, ImportError) as error:
            raise ModelError(f"{model} cannot be loaded: {error}", kind="unreadable") from error
        self._model = loaded.to(device).eval()
        self.notes = self._located.notes
        self.troubles: dict[str, int] = {}

    @property
    def identity(self) -> dict[str, object]:
        """What decides what it answers."""
        located = self._located
        return {
            "model": located.source,
            "sha256": located.sha256,
            "max_new_tokens": self._max_new_tokens,
        }

    def write(self, order: Order) -> tuple[str, bool]:
        """Return an answer, and whether it was cut off."""
        import torch

        messages = [{"role": "user", "content": order.message}]
        prompt = self._tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=False
        )
        inputs = self._tokenizer(str(prompt), add_special_tokens=False, return_tensors="pt").to(
            self._model.device
        )
        seed_everything(order.seed)
        with torch.inference_mode():
            found = self._model.generate(
                **inputs,
                do_sample=True,
                temperature=order.temperature,
                top_p=order.top_p,
                top_k=0,
                max_new_tokens=self._max_new_tokens,
                pad_token_id=self._tokenizer.pad_token_id or self._tokenizer.eos_token_id,
            )
        new = found[0, inputs["input_ids"].shape[1] :]
        cut = len(new) == self._max_new_tokens
        return str(self._tokenizer.decode(new, skip_special_tokens=True)).strip(), cut
