"""Prompts with vectors in them as `vllm serve --enable-prompt-embeds` takes them: a request a line.

vLLM takes a prompt of embeddings as base64 of what `torch.save` writes, and as nothing else: a pickle, though
of one tensor, and read there with `weights_only`. It is the only one that graftlab writes.
https://docs.vllm.ai/en/stable/features/prompt_embeds/
"""

# Shapes: L tokens of a prompt, H numbers of a token.

import base64
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from graftlab import inference, runfile
from graftlab.adapters.files import write
from graftlab.contracts import Data, Row, Served
from graftlab.errors import Argument, ConfigError, Place
from graftlab.inference import Inputs, inputs, vectors
from graftlab.rundir import files, manifest
from graftlab.rundir import run as rundir

if TYPE_CHECKING:
    from torch import Tensor

REQUESTS, LORA = "requests.jsonl", "lora"
"""The requests; the LoRA of the language model, for `--lora-modules`."""


class Written(NamedTuple):
    """What an export has written."""

    requests: int
    model: str
    """As the requests name it: what is served, or its LoRA."""
    llm: str
    """What is to be served."""
    lora: bool


def export(run: Path, out: Path, asked: Inputs) -> Written:
    """Write a request of the Completions API for each input of a run that reads vectors.

    The folder holds requests.jsonl, in the order of the inputs, manifest.json and, where the language model
    has LoRA, the folder lora: plain PEFT. How answers are written is said in each request.

    Raises:
        ConfigError: the method has no such form, or `out` is there already.
        DataError: an input cannot be used.
        DiskError: `out` cannot be written.
    """
    found = rundir.find(run)
    file = runfile.of_run(found)
    method = file.method
    if method.module.served is None:
        raise ConfigError(
            f"the method {method.name!r} makes no tokens for a language model.",
            ("It is for method elm.",),
            place=Place(argument=Argument("format", "prompt-embeds")),
            kind="conflict",
        )
    files.refuse_taken(out)  # before anything is loaded
    rows = inputs.read(found, file, file.task.config, asked)
    rows = vectors.embedded(found, rows, asked.reading)
    adapted = inference.load(run)
    served = method.module.served(adapted.model)
    with files.new_folder(out) as partial:
        model = out.name if served.lora else served.model
        with (partial / REQUESTS).open("w", encoding="utf-8") as stream:
            for request in _requests(adapted, rows, served):
                stream.write(json.dumps({"model": model, **request}, ensure_ascii=False) + "\n")
        if served.lora:
            write(partial / LORA, *served.lora)
        manifest.write(partial, manifest.inside(partial))
    return Written(len(rows), model, served.model, served.lora is not None)


def _requests(
    adapted: inference.Adapted, rows: Sequence[Row], served: Served
) -> Iterator[dict[str, object]]:
    """Yield what each request says beside the model."""
    settings = adapted.file.task.config.generation
    task: Any = adapted.bind(Data({"input": rows}, adapted.problem))
    for index in range(len(rows)):
        with adapted.precision():
            tokens_LH = served.embed(task.batch("input", [index], None))[0]
        yield {
            "prompt_embeds": encoded(tokens_LH),
            "max_tokens": settings.max_new_tokens,
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "top_k": settings.top_k or -1,  # vLLM's word for all
            "repetition_penalty": settings.repetition_penalty,
            "n": settings.samples,
            "seed": settings.seed,
            "stop": list(settings.stop),
            "stop_token_ids": task.template["end_tokens"],
        }


def encoded(tokens_LH: "Tensor") -> str:
    """Return the tokens of a prompt (L, H) as a request carries them."""
    import torch

    stream = io.BytesIO()
    torch.save(tokens_LH.cpu().clone(), stream)  # a view would bring all of what it is a view of
    return base64.b64encode(stream.getvalue()).decode("ascii")
