"""What a run has come to: its adapter, and what its result.json says."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from graftlab.contracts import Note, written
from graftlab.errors import Diverged
from graftlab.rundir import files, manifest
from graftlab.rundir.lines import read_lines
from graftlab.rundir.records import Outcome
from graftlab.rundir.run import Run
from graftlab.weights import quantized

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from graftlab.contracts import Problem, Task
    from graftlab.runfile import RunFile
    from graftlab.training.loop import Loop


MADE = "<!-- made by graftlab, and made anew by `graftlab push`; without this line it is yours and stays -->"
"""A line of a card that no hand has written."""


def result(file: "RunFile", loop: "Loop", not_deterministic: "Sequence[str]") -> Outcome:
    """Return all that is known of a run whose training is over, but for its scores."""
    position = loop.position
    trainable, total = count(loop.model)
    timing = read_lines(loop.parts.run.timing)
    last = file.training.select == "last" or not position.best_step
    not_exact = written([*position.not_exact, *_cut(loop), *_out_of_time(loop)])
    return {
        "name": file.name,
        "task": file.resolved["task"].get("name") or file.task.name,
        "method": file.method.name,
        "backbone": file.resolved["backbone"].get("model") or file.backbone.name,
        "seed": file.seed,
        "processes": loop.parts.processes.share.world,
        "steps": position.step,
        "ended_early": position.ended or bool(_out_of_time(loop)),
        "selected_step": position.step if last else position.best_step,
        "selected_by": None if last else loop.parts.best_by,
        "parameters": {"trainable": trainable, "total": total},
        "skipped_steps": position.skipped,
        "facts": {k: v for h in loop.parts.attached.hooks for k, v in h.facts().items()},
        "exact": not not_exact,
        "not_exact": not_exact,
        "not_deterministic": list(not_deterministic),
        "seconds": {"training": sum(row["seconds"] for row in timing if "event" not in row)},
    }


def write_adapter(run: Run, file: "RunFile", model: "nn.Module", task: "Task") -> None:
    """Write the adapter beside and move it into its place, so that it is whole or not there.

    `template.json` says what prompts it was trained on, where it has any; README.md which class is which
    output, where there are classes; `manifest.json` what the others hash to.

    Raises:
        Diverged: a number in it is not finite.
    """
    partial = run.path / "adapter.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    file.method.module.save(model, partial)
    if template := getattr(task, "template", None):
        files.write_json(partial / "template.json", template)
    if said := card(file, task.problem):
        files.write_text(partial / "README.md", said)
    for path in sorted(partial.glob("*.safetensors")):
        _check_finite(path, run)
    manifest.write(partial, manifest.inside(partial, without=("README.md",)))
    if (chats := getattr(file.task.config, "chat_template_file", None)) is not None:
        shutil.copyfile(chats, run.path / chats.name)  # wherever the run goes
    for path in partial.rglob("*"):
        files.sync(path)
    shutil.rmtree(run.adapter, ignore_errors=True)
    partial.rename(run.adapter)
    files.sync(run.path)


def card(file: "RunFile", problem: "Problem") -> str:
    """Return the card of an adapter folder, with its classes in the order of the outputs; else nothing."""
    tables = class_tables(file.task.config.name or file.task.name, problem)
    head = f"{MADE}\n\n# {_cell(file.name)}\n\nAn adapter by the method `{file.method.name}`. Its classes:\n"
    return "\n".join([head, *tables]) + "\n" if tables else ""


def class_tables(task: str, problem: "Problem") -> list[str]:
    """Return which class is which output, as Markdown: a table for each task that has classes."""
    return [
        f"**{_cell(name)}**\n\n| output | class |\n| --- | --- |\n"
        + "\n".join(f"| {n} | {_cell(label)} |" for n, label in enumerate(own.labels))
        for name, own in problem.parts or ((task, problem),)
        if own.kind == "classes"
    ]


def _cell(text: str) -> str:
    """Return text that ends no cell and no line of a table."""
    return " ".join(text.split()).replace("|", r"\|").replace("<", "&lt;")


def _check_finite(path: Path, run: Run) -> None:
    if name := files.not_finite(files.load_tensors(path)):
        raise Diverged(
            f"training has ended with numbers in {name} that are not finite: nothing is answered with them. "
            f"Lower training.learning_rate and run again. The checkpoints in {run.checkpoints} stay."
        )


def _out_of_time(loop: "Loop") -> list[Note]:
    """Return a reason if the run has ended by time: another machine would have come to another step."""
    position = loop.position
    if not position.out_of_time or position.step == loop.num_steps:
        return []
    asked = loop.config.max_seconds
    return [Note.of("out_of_time", seconds=asked, step=position.step, steps=loop.num_steps)]


def _cut(loop: "Loop") -> list[Note]:
    """Return a reason if memory ran out and the micro-batch was made smaller."""
    asked, made = loop.asked_micro_batch_size, loop.position.micro_batch_size
    if made >= asked:
        return []
    return [Note.of("memory_ran_out", now=made, asked=asked)]


def count(model: "nn.Module") -> tuple[int, int]:
    """Return how many numbers train, and how many there are."""
    # DeepSpeed leaves a weight that it has shared out no numbers, but says how many there are
    sizes = [
        (getattr(p, "ds_numel", quantized.numel(p)), p.requires_grad) for p in model.parameters()
    ]
    return sum(n for n, trains in sizes if trains), sum(n for n, _ in sizes)
