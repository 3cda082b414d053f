"""Answers of an instruct model on this machine, one at a time, each drawn from its own seed."""

# Shapes: L tokens of a prompt.

from graftlab.backbones._pretrained import quiet
from graftlab.errors import Argument, ModelError, Words
from graftlab.seeds import seed_everything
from graftlab.synthesis.orders import Order, Unanswerable
from graftlab.tasks.generation.chat import Guard, Segment
from graftlab.tasks.generation.tokens import special_tokens
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
        self._guard = Guard(special_tokens(self._tokenizer))
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
        """Return an answer, and whether it was cut off. `Raises:` Unanswerable: the text is too long."""
        import torch

        prompt_L = self._tokens(order.message)
        self._fit(len(prompt_L), order)
        seed_everything(order.seed)
        ids_1L = torch.tensor([prompt_L], device=self._model.device)
        with torch.inference_mode():
            found = self._model.generate(
                input_ids=ids_1L,
                attention_mask=torch.ones_like(ids_1L),
                do_sample=True,
                temperature=order.temperature,
                top_p=order.top_p,
                top_k=0,
                max_new_tokens=self._max_new_tokens,
                pad_token_id=self._tokenizer.pad_token_id or self._tokenizer.eos_token_id,
            )
        new = found[0, len(prompt_L) :]
        cut = len(new) == self._max_new_tokens
        return str(self._tokenizer.decode(new, skip_special_tokens=True)).strip(), cut

    def _tokens(self, message: str) -> list[int]:
        """Return a turn of the user in the chat template; what spells a special token in it is plain text."""
        turn = [{"role": "user", "content": self._guard.hide(message)}]
        filled = self._tokenizer.apply_chat_template(
            turn, add_generation_prompt=True, tokenize=False
        )
        found: list[int] = []
        for piece in self._guard.show([Segment(str(filled), False)]):
            ids = self._tokenizer(
                piece.text,
                add_special_tokens=False,
                split_special_tokens=piece.plain,
                verbose=False,
            )["input_ids"]
            found += ids
        return found

    def _fit(self, length: int, order: Order) -> None:
        most = getattr(self._model.config, "max_position_embeddings", None)
        if most is None or length + self._max_new_tokens <= most:
            return
        said = (
            f"text {order.document + 1} of {order.split} has {length} tokens with its prompt: with "
            f"{self._max_new_tokens} of an answer that is more than the model reads, {most}."
        )
        remedy: Words = ("Shorten it, or give fewer with ", Argument("max_new_tokens"), ".")
        raise Unanswerable("too long", ModelError(said, remedy, kind="too_long", given=length))
