"""What fine-tuning does to a small decoder on maths, questions and summaries: LoRA, QLoRA and all weights.

python bench/small_decoder.py MODEL DATA [--threads 1] [--train 1500] [--test 200] [--tasks gsm8k ...]

MODEL is a folder with a small causal language model, DATA one with the folders gsm8k, squad_v2 and
dialogsum. Each row is a run of one epoch; beside them stand one answer given to all (the likeliest), and
the model as it is. "merged" is the largest difference of a logit after the adapter was folded in.
"""

import argparse
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from harness import in_turns, write

CLAIM = (
    "A small Llama (6.5 million weights) fine-tuned on {task} for one epoch with LoRA, with QLoRA (4 bits) "
    "and in full: the loss of an answer's tokens and what the written answers are worth on test, beside the "
    "model as it is and one answer for all. The model is small: what counts is what changes."
)
CONSTANT, UNTRAINED, LORA, QLORA, FULL = (
    "one answer for all",
    "as it is",
    "LoRA r 8",
    "QLoRA r 8, nf4",
    "full",
)
TASKS: dict[str, dict[str, Any]] = {
    "gsm8k": {"max_length": 320, "generation": {"max_new_tokens": 160}},
    "squad_v2": {"max_length": 320},
    "dialogsum": {"max_length": 400, "generation": {"max_new_tokens": 60}},
}
WAYS: dict[str, dict[str, Any]] = {
    LORA: {"method": {"name": "lora", "rank": 8, "alpha": 16}, "rate": 1e-3},
    QLORA: {
        "method": {"name": "lora", "rank": 8, "alpha": 16},
        "rate": 1e-3,
        "backbone": {"quantization": {"bits": 4, "compute_dtype": "float32"}},
    },
    FULL: {"method": {"name": "full"}, "rate": 2e-4},
}
NEIGHBOURS = 150  # summaries that the one for all is chosen among, and by


def run_file(asked: dict[str, Any], folder: Path) -> Path:
    """Write the run file of a row and return its place."""
    from graftlab import config

    way = WAYS.get(asked["way"], WAYS[LORA])
    limits = {
        "max_train_samples": asked["train"],
        "max_validation_samples": 100,
        "max_test_samples": asked["test"],
    }
    values = {
        "name": "row",
        "backbone": {
            "model": asked["model"],
            "dtype": "float32",
            "max_length": 512,
            **way.get("backbone", {}),
        },
        "task": {
            "name": asked["task"],
            "data_dir": f"{asked['data']}/{asked['task']}",
            **limits,
            **TASKS[asked["task"]],
        },
        "method": way["method"],
        "training": {
            "epochs": 1,
            "batch_size": 8,
            "learning_rate": way["rate"],
            "evaluate_every": 0,
            "save_every": 0,
            "best_by": "perplexity",
        },
        "paths": {"runs": str(folder / "runs"), "cache": str(folder / "cache")},
    }
    path = folder / "row.yaml"
    path.write_text(config.dump(values), encoding="utf-8")
    return path


def figures(scores: dict[str, Any], loss: float | None) -> dict[str, float]:
    """Return the figures of a row: shares as percentages."""
    found = {} if loss is None else {"loss": loss}
    for name, score in scores.items():
        value = score["value"] if isinstance(score, dict) else score.value
        if value is not None and name != "loss":
            found[name] = value if name in ("perplexity", "bleu") else 100 * value
    return found


def constant(file: Path) -> dict[str, float]:
    """Return what the likeliest single answer scores."""
    from graftlab import config, runfile
    from graftlab.runs import evaluation

    resolved = runfile.resolve(config.read(file))
    part = resolved.task
    data = part.module.read(part.config, resolved.paths, 0)
    train = [row["label"] for row in data.splits["train"]]
    answer = {"gsm8k": _number, "squad_v2": lambda _: "unanswerable", "dialogsum": _summary}
    text = answer[part.config.name](train)
    print(f"one answer for all: {text}", file=sys.stderr)
    rows = [
        {"index": i, "label": row["label"], "prediction": text}
        for i, row in enumerate(data.splits["test"])
    ]
    names = [n for n in part.config.metrics if n not in ("token_accuracy", "perplexity")]
    return figures(evaluation.score(rows, names), None)


def _number(train: list[str]) -> str:
    """Return the most common result, as an answer."""
    return (
        "#### " + Counter(text.rpartition("####")[2].strip() for text in train).most_common(1)[0][0]
    )


def _summary(train: list[str]) -> str:
    """Return the summary that is most like others."""
    from graftlab.runfile.measures import measure

    some, rouge = train[:NEIGHBOURS], measure("rougeL")

    def likeness(text: str) -> float:
        return rouge.score([{"label": other, "prediction": text} for other in some]).value or 0.0

    return max(some, key=likeness)


def untrained(file: Path) -> dict[str, float]:
    """Return what the model scores as it is."""
    from graftlab import config, runfile
    from graftlab.runs import evaluation, prediction

    resolved = runfile.resolve(config.read(file))
    part = resolved.task
    data = part.module.read(part.config, resolved.paths, 0)
    backbone = resolved.backbone.module.load(resolved.backbone.config, data.problem, 0)
    task = part.module.bind(data, backbone, part.config, 0)
    rows = prediction.predict(
        backbone.model, task, "test", 8, writer=prediction.writer_of(task, "test")
    )
    names = evaluation.metrics_at_end(task, "test")
    scores = evaluation.score(rows, names)
    return figures(scores, evaluation.mean_loss(rows))


def trained(file: Path, folder: Path) -> dict[str, float]:
    """Return what a run scores, and how well its merged model agrees."""
    import graftlab
    from graftlab.release import merge

    run = graftlab.run(file)
    scores = run.read_result()["metrics"]["test"]
    loss = scores.pop("loss")["value"]
    certificate = merge.merge(run.path, folder / "merged")
    assert certificate["passed"], certificate["problems"]
    merged = certificate["compared"]["logits"]["largest"]
    assert merged is not None
    return figures(scores, loss) | {"merged: largest logit difference": merged}


def child(asked: dict[str, Any]) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = run_file(asked, folder)
        if asked["way"] == CONSTANT:
            return constant(file)
        return untrained(file) if asked["way"] == UNTRAINED else trained(file, folder)


if __name__ == "__main__":
    if sys.argv[1] == "--child":
        print(json.dumps(child(json.loads(sys.argv[2]))))
        sys.exit()
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--train", type=int, default=1500)
    parser.add_argument("--test", type=int, default=200)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    given = parser.parse_args()
    for task in given.tasks:
        sizes = {"train": given.train, "test": given.test}
        places = {"model": given.model, "data": given.data, "task": task}
        contestants = {
            way: lambda _, way=way, places=places, sizes=sizes: [
                sys.executable, __file__, "--child", json.dumps({**places, **sizes, "way": way})
            ]
            for way in (CONSTANT, UNTRAINED, *WAYS)
        }  # fmt: skip
        turns = in_turns(contestants, 1, given.threads, warm_up=False)
        settings = {
            "rows to train on": given.train,
            "rows of test": given.test,
            "threads": given.threads,
        }
        write(f"small_decoder_{task}", CLAIM.format(task=task), turns, [], settings)
