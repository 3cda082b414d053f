"""EleutherAI's Language Model Evaluation Harness, asked about the decoder of a finished run.

Prompts, scoring and standard errors are the harness's own (github.com/EleutherAI/lm-evaluation-harness),
so that its figures stand beside published ones; only the model is ours.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from graftlab.errors import Argument, ConfigError, DataError, Place, missing_extra, nearest
from graftlab.rundir import files

if TYPE_CHECKING:
    from graftlab.inference import Adapted

TASKS = Argument("tasks")
SEEDS = ("random_seed", "numpy_random_seed", "torch_random_seed", "fewshot_random_seed")
LONGEST = 80  # of the tasks' names in that of the file


class Options(NamedTuple):
    """What the harness is asked."""

    tasks: tuple[str, ...]
    """Names of its tasks or groups."""
    fewshot: int | None = None
    """Examples in front of each question; each task's own number unless given."""
    limit: int | None = None
    """Only so many questions of each task."""
    folder: Path | None = None
    """A folder with further tasks as YAML."""


def evaluate(adapted: "Adapted", options: Options, batch_size: int) -> dict[str, object]:
    """Return `results` by task (each metric with its standard error as the harness names them),
    `versions`, `samples` (how many questions), and the `harness` version.

    Raises:
        ConfigError: lm-eval is not installed, a task is unknown, or the model is no language model.
        DataError: the questions of a task cannot be had.
    """
    if adapted.problem.kind != "tokens":
        raise ConfigError(
            f"the harness asks a language model, but {adapted.run.path} puts out {adapted.problem.kind}.",
            ("Score it on its own task with ", Argument("split"), "."),
            place=Place(argument=TASKS),
            kind="conflict",
        )
    manager = _manager(options)
    import lm_eval

    try:
        found = lm_eval.simple_evaluate(
            model=_model(adapted, batch_size),
            tasks=list(options.tasks),
            num_fewshot=options.fewshot,
            limit=options.limit,
            task_manager=manager,
            log_samples=False,
            bootstrap_iters=1000,
            **dict.fromkeys(SEEDS, 0),
        )
    except (OSError, ValueError) as error:  # of `datasets`, which the harness does not explain
        raise DataError(
            f"the questions of {', '.join(options.tasks)} cannot be had: {error}. They come from the hub, "
            f"unless the task's YAML names local files."
        ) from error
    return {
        "results": {name: dict(scores) for name, scores in found["results"].items()},
        "versions": dict(found["versions"]),
        "samples": {name: n["effective"] for name, n in found["n-samples"].items()},
        "fewshot": dict(found["n-shot"]),
        "harness": lm_eval.__version__,
    }


def keep(adapted: "Adapted", options: Options, found: Mapping[str, object]) -> Path:
    """Write what the harness has found into the run's folder `harness/`; return the file."""
    shots = f"-{options.fewshot}shot" if options.fewshot is not None else ""
    first = f"-first{options.limit}" if options.limit else ""
    name = adapted.named(f"{'-'.join(options.tasks)[:LONGEST]}{shots}{first}")
    path = adapted.run.path / "harness" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    files.write_json(path, found)
    return path


def _manager(options: Options) -> Any:
    """Return the harness's tasks, once all that are asked for are among them."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        said = missing_extra("this", "lm-eval", "harness")
        raise ConfigError(said, place=Place(argument=TASKS), kind="not_installed") from error
    if options.folder and not options.folder.is_dir():
        place = Place(argument=Argument("folder", str(options.folder)))
        raise ConfigError("there is no such folder.", place=place, kind="unknown")
    manager: Any = None
    if options.folder:  # its own thousands of tasks take long to look through
        manager = TaskManager(include_path=str(options.folder), include_defaults=False)
    if manager is None or not set(options.tasks) <= set(manager.all_tasks):
        manager = TaskManager(include_path=str(options.folder) if options.folder else None)
    for name in options.tasks:
        if name not in manager.all_tasks:
            own = _own(options.folder)
            known = own or ("hellaswag", "arc_easy", "arc_challenge", "winogrande", "gsm8k")
            close = nearest(name, manager.all_tasks)
            hint = f" Did you mean {close!r}?" if close else ""
            raise ConfigError(
                f"unknown task of the harness {name!r}.{hint} Such as: {', '.join(known)}.",
                place=Place(argument=TASKS),
                kind="unknown",
                given=name,
            )
    return manager


def _own(folder: Path | None) -> list[str]:
    return sorted(path.stem for path in folder.rglob("*.yaml")) if folder else []


def _model(adapted: "Adapted", batch_size: int) -> Any:
    """Return the model as the harness wants it."""
    from lm_eval.models.huggingface import HFLM

    return HFLM(
        pretrained=adapted.model,
        tokenizer=adapted.backbone.processor,
        batch_size=batch_size,
        max_length=adapted.backbone.max_length,
    )
