"""The first examples of a run file as the model gets them: each token, and whether it is trained."""

from typing import Any

from graftlab.errors import ConfigError, DataError
from graftlab.runfile import RunFile
from graftlab.seeds import mix

MARKS = "⟦", "⟧"  # around what is trained


def first_batch(file: RunFile, split: str, num_examples: int) -> dict[str, Any]:
    """Return `examples`, each with its `index`, `text` and `tokens` (`id`, `text`, `trained`), and the task's
    `record`. The model is built without its weights, for its tokenizer.

    Raises:
        ConfigError: the task has no tokens.
        DataError: the split has no examples.
    """
    part = file.task
    data = part.module.read(part.config, file.paths, file.seed)
    backbone = file.backbone.module.load(
        file.backbone.config, data.problem, mix(file.seed, "backbone"), meta=True
    )
    if backbone.max_length is None:
        raise ConfigError("show batch shows tokens, but this task has images.")
    task = part.module.bind(data, backbone, part.config, mix(file.seed, "task"))
    if not task.size(split):
        known = ", ".join(name for name in data.splits if task.size(name))
        raise DataError(f"the task has no examples in {split!r}. It has: {known}.")
    examples = []
    for index in range(min(num_examples, task.size(split))):
        batch = {k: v[0] for k, v in task.batch(split, [index], 0).items()}
        tokens = _tokens(batch, backbone.processor)
        examples.append(
            {"index": index, "text": marked(tokens, backbone.processor), "tokens": tokens}
        )
    return {
        "split": split,
        "sizes": {name: task.size(name) for name in data.splits},
        "examples": examples,
        "record": {"notes": data.record.get("notes", []), **getattr(task, "record", {})},
    }


def _tokens(batch: dict[str, Any], tokenizer: Any) -> list[dict[str, Any]]:
    """Return an example's tokens. One with a class has no token that is trained; of several choices the
    right one is there."""
    ids, labels = batch["input_ids"].flatten(), batch["labels"].flatten()
    trained = (labels == ids).tolist() if len(labels) == len(ids) else [False] * len(ids)
    mask = batch.get("attention_mask")
    kept = [True] * len(ids) if mask is None else mask.flatten().bool().tolist()
    return [
        {"id": token, "text": tokenizer.decode([token]), "trained": is_trained}
        for token, is_trained, is_kept in zip(ids.tolist(), trained, kept, strict=True)
        if is_kept
    ]


def marked(tokens: list[dict[str, Any]], tokenizer: Any) -> str:
    """Return the text with marks around what is trained."""
    text, run, last = "", list[int](), False
    for token in [*tokens, {"id": None, "trained": not tokens[-1]["trained"]}]:
        if token["trained"] != last:
            piece = tokenizer.decode(run)
            text += f"{MARKS[0]}{piece}{MARKS[1]}" if last else piece
            run, last = [], token["trained"]
        run.append(token["id"])
    return text
