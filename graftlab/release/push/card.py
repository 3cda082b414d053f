"""The model card of a run: what it is, how good it is and how to use it, with the hub's metadata in front.

https://huggingface.co/docs/hub/model-cards (the metadata are YAML between two lines of dashes)
"""

import re
from typing import Any

from graftlab.contracts import Problem
from graftlab.errors import ConfigError, Place, Words
from graftlab.release.push import card_results
from graftlab.release.push.contents import CARD, MODEL_CONFIG, Shared
from graftlab.release.push.markdown import fenced, plain, table
from graftlab.runs import outcome

MADE = (outcome.MADE, "<!-- made by `graftlab push`, and made anew by it;")
"""What a card begins with that is made anew: now, and by older versions."""
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
PIPELINES = {"classes": "text-classification", "tokens": "text-generation"}
IMAGES = "image-classification"
AUTO = {
    "text-classification": "AutoModelForSequenceClassification",
    "text-generation": "AutoModelForCausalLM",
    IMAGES: "AutoModelForImageClassification",
}
MODEL_CODE = """```python
{teach}from transformers import {auto}

model = {auto}.from_pretrained("{repo}").eval()
```"""
PEFT_CODE = """```python
{teach}from peft import PeftModel
from transformers import {auto}

base = {auto}.from_pretrained("{base}"{options})
model = PeftModel.from_pretrained(base, "{repo}").eval()
```"""


def write(shared: Shared, repo: str) -> str:
    """Write the card into the adapter's folder, and return it; one that a user has written is kept.

    Raises:
        ConfigError: the user's own card is no text, or has metadata that the hub does not take.
    """
    path = shared.run.adapter / CARD
    try:
        text = path.read_text(encoding="utf-8") if path.is_file() else outcome.MADE
    except UnicodeDecodeError as error:
        said = f"it is no text in UTF-8 ({error})."
        again: Words = ("Mend it, or take it away: another is made.",)
        raise ConfigError(said, again, kind="unreadable", place=Place(str(path))) from error
    if any(mark in text for mark in MADE):
        text = make(shared, repo)
        path.write_text(text, encoding="utf-8")
    check(text, str(path))
    return text


def check(text: str, where: str) -> None:
    """Raise ConfigError if the metadata in front of a card cannot be read as the hub's."""
    from huggingface_hub import ModelCard

    try:
        ModelCard(text)
    except Exception as error:  # of yaml or of huggingface_hub, which has no class for it
        raise ConfigError(
            f"the metadata in {where} are not as the hub wants them: {error}"
        ) from None


def make(shared: Shared, repo: str) -> str:
    """Return the card of a run that will be at `repo`."""
    result = shared.result
    sections = [
        f"---\n{metadata(shared, repo).to_yaml()}\n---",
        outcome.MADE,
        f"# {plain(result['name'])}",
        _summary(shared),
        *card_results.sections(shared.run, result),
        *_classes(shared),
        "## Use",
        *_use(shared, repo),
        *_prompt(shared),
        "## How it was trained",
        _facts(shared),
        "The whole run file is `config.yaml`; `graftlab run config.yaml` trains it again:",
        fenced(shared.config(), "yaml"),
    ]
    return "\n\n".join(sections) + "\n"


def _classes(shared: Shared) -> list[str]:
    """Return which class is which output, where there are classes."""
    problem = Problem.from_json(shared.environment["data"])
    tables = outcome.class_tables(shared.result["task"], problem)
    return ["## Classes", *tables] if tables else []


def metadata(shared: Shared, repo: str) -> Any:
    """Return huggingface_hub's record of the card's metadata: base model, data, tags and scores."""
    from huggingface_hub import EvalResult, ModelCardData

    task, hub_id = shared.result["task"], _data_id(shared)
    scores = [
        EvalResult(
            task_type=pipeline(shared) or "other",
            dataset_type=hub_id or task,
            dataset_name=task,
            dataset_config=shared.file.task.config.hub.name if hub_id else None,
            dataset_split=split,
            dataset_revision=shared.environment["data"].get("revision"),
            metric_type=name,
            metric_name=name,
            metric_value=score["value"],
        )
        for split, found in shared.result["metrics"].items()
        for name, score in found.items()
        if score["value"] is not None
    ]
    base = None if shared.base_is_local else shared.environment["backbone"]["source"]
    known = bool(base and HUB_ID.fullmatch(base))
    library = "peft" if shared.peft else "transformers" if _is_model(shared) else "graftlab"
    return ModelCardData(
        base_model=base if known else None,
        base_model_relation=("adapter" if shared.peft else "finetune") if known else None,
        library_name=library,
        pipeline_tag=pipeline(shared),
        tags=["graftlab", shared.result["method"]],
        datasets=[hub_id] if hub_id else None,
        metrics=sorted(
            {score.metric_type.rpartition("/")[2] for score in scores} - {"loss", "mean"}
        ),
        model_name=repo.rpartition("/")[2],
        eval_results=scores or None,
    )


def pipeline(shared: Shared) -> str | None:
    """Return the hub's name for what the model does; None for a score, which has none."""
    if shared.file.task.name == "images":
        return IMAGES
    return PIPELINES.get(shared.environment["data"].get("problem", "classes"))


def _data_id(shared: Shared) -> str | None:
    """Return the hub's id of the data set; None for rows from elsewhere."""
    config = shared.file.task.config
    local = getattr(config, "data_dir", None) or getattr(config, "files", None)
    hub = getattr(config, "hub", None)
    return None if local or not hub else str(hub.path)


def _is_model(shared: Shared) -> bool:
    """What was saved is a model of transformers, as full fine-tuning and PiFi save one."""
    return (shared.run.adapter / MODEL_CONFIG).is_file()


def _summary(shared: Shared) -> str:
    result, base = shared.result, plain(_base(shared))
    revision = shared.environment["backbone"]["revision"]
    at = f" at revision `{revision}`" if revision else ""
    parameters = result["parameters"]
    trained = (
        f"{parameters['trainable']:,} of {parameters['total']:,} parameters "
        f"({parameters['trainable'] / parameters['total']:.2%})"
    )
    what = "weights" if _is_model(shared) else "an adapter"
    lines = [
        f"This is {what} for {base}{at}, trained by graftlab with the method "
        f"`{result['method']}` on {plain(result['task'])}: {trained}."
    ]
    if shared.base_is_local:
        lines.append(
            f"The base model is not on the hub: its weights have sha256 "
            f"{', '.join(f'`{h}`' for h in shared.environment['backbone']['sha256'].values())}."
        )
    return "\n".join(lines)


def _base(shared: Shared) -> str:
    from graftlab.release.push.contents import portable_model

    source = str(shared.environment["backbone"]["source"])
    return portable_model(source) if shared.base_is_local else source


def _use(shared: Shared, repo: str) -> list[str]:
    name = repo.rpartition("/")[2]
    ours = (
        f"With graftlab, which reads templates, labels and settings from `config.yaml`:\n\n"
        f"```bash\nhf download {repo} --local-dir {name}\n"
        f'graftlab predict {name} --input "a text"\n```'
    )
    auto = AUTO.get(pipeline(shared) or "text-classification", "")
    labels = shared.environment["data"].get("labels") or ["score"]
    options = "" if auto == "AutoModelForCausalLM" else f", num_labels={len(labels)}"
    if _is_model(shared):
        code = MODEL_CODE.format(teach=_teach(shared, "transformers"), auto=auto, repo=repo)
        return [code, ours]
    if shared.peft is None:
        return [f"PEFT does not load what `{shared.file.method.name}` saves.", ours]
    if (shared.run.adapter / "initial_adapter.safetensors").is_file():
        return [
            "It began from a part of the base model's own weights, which plain PEFT would not take out "
            "again: `graftlab export RUN --out DIR` makes plain LoRA of it.",
            ours,
        ]
    if auto == AUTO[IMAGES]:
        options += ", ignore_mismatched_sizes=True"
    code = PEFT_CODE.format(
        teach=_teach(shared, "PEFT"), auto=auto, base=_base(shared), options=options, repo=repo
    )
    return ["With PEFT:", code, ours]


def _teach(shared: Shared, library: str) -> str:
    """Return the line without which the library does not know the method; nothing if it does."""
    unknown = shared.file.method.module.REGISTERS is not None
    return f"import graftlab.auto  # teaches {library} this method\n" if unknown else ""


def _prompt(shared: Shared) -> list[str]:
    """Return how an input has to be laid out for a model that writes."""
    config = shared.file.task.config
    if not hasattr(config, "generation"):
        return []
    if config.template == "chat":
        return [
            "Inputs are conversations, in the tokenizer's chat template or that of `config.yaml`."
        ]
    prompt = config.filled.prompt
    if not prompt:
        return ["It goes on with any text."]
    where = "the user's turn of a chat template" if config.chat_template else "the prompt"
    return [f"An input is laid out like this, as {where}:", fenced(prompt, "text")]


def _facts(shared: Shared) -> str:
    result, training = shared.result, shared.file.resolved["training"]
    method = {k: v for k, v in shared.file.resolved["method"].items() if k in ("rank", "alpha")}
    sizes = ", ".join(f"{split} {count:,}" for split, count in result["data"].items())
    rows: list[tuple[str, ...]] = [
        ("method", " ".join([result["method"], *(f"{k} {v}" for k, v in method.items())])),
        ("data", f"{_data_id(shared) or result['task']}: {sizes}"),
        ("steps", f"{result['steps']}, batches of {training['batch_size']}"),
        (
            "optimizer",
            f"{training['optimizer']['name']}, learning rate {training['learning_rate']:g}",
        ),
        ("precision", training["precision"]),
        ("seed", str(result["seed"])),
        ("graftlab", str(shared.environment.get("packages", {}).get("graftlab", ""))),
    ]
    return table(("what", "value"), rows)
