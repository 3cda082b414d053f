"""Whether what a run file asks for fits the rows that it has: found before any model is loaded."""

from collections.abc import Iterator

from graftlab.contracts import USUAL_METRICS, Data, Problem, TaskKind
from graftlab.data.section import DataSection
from graftlab.errors import ConfigError, Fault, Place, unknown
from graftlab.runfile import Part, RunFile, measures


def check(file: RunFile, data: Data) -> None:
    """Refuse a batch, a metric or a method that does not fit the rows.

    Raises:
        ConfigError: something does not; all of it is said at once.
    """
    problem = data.problem
    found = [*_batch(file, data), *_method(file, problem)]
    for number, (name, own) in enumerate(problem.parts):
        found += _metrics(file.task.parts[name], own, ("task", "tasks", number))
    if not problem.parts:
        found += [*_metrics(file.task, problem, ("task",)), *_best_by(file, problem)]
    if found:
        raise ConfigError(found)


def _batch(file: RunFile, data: Data) -> Iterator[Fault]:
    rows, batch = len(data.splits.get("train", ())), file.training.batch_size
    if rows and batch > rows:
        yield Fault(
            f"training.batch_size is {batch}, but there are only {rows} training examples.",
            kind="conflict",
            place=Place(key=("training", "batch_size")),
            given=batch,
            remedies=((f"Set it to at most {rows}.",),),
        )


def _method(file: RunFile, problem: Problem) -> Iterator[Fault]:
    if (why := file.method.module.PROMISES.not_problems.get(problem.kind)) is not None:
        yield Fault(
            f"the method {file.method.name!r} does not fit this task: {why}.",
            kind="conflict",
            place=Place(key=("method", "name")),
            given=file.method.name,
            remedies=(("Choose another method, such as lora.",),),
        )


def _metrics(
    part: Part[TaskKind], problem: Problem, where: tuple[str | int, ...]
) -> Iterator[Fault]:
    asked = part.config.metrics if isinstance(part.config, DataSection) else ()
    for number, name in enumerate(asked):
        if not _reads(name, problem):
            fitting = [other for other in measures.names() if _reads(other, problem)]
            yield Fault(
                f"{'.'.join(map(str, where))}.metrics: {name} is not for a task whose predictions are "
                f"{_words(problem)}.",
                kind="conflict",
                place=Place(key=(*where, "metrics", number)),
                given=name,
                allowed=fitting,
                remedies=((f"For it there are {', '.join(fitting)}.",),),
            )


def _reads(name: str, problem: Problem) -> bool:
    """Return whether a metric reads what a problem's predictions are."""
    module = measures.measure(name).module
    written = problem.kind == "tokens" and not problem.labels
    if module.READS != "classes":
        return written
    kind = "classes" if problem.kind == "tokens" else problem.kind
    return not written and kind in module.PROBLEMS


def _words(problem: Problem) -> str:
    if problem.kind == "tokens" and not problem.labels:
        return "texts"
    return "scores" if problem.kind == "regression" else "classes"


def _best_by(file: RunFile, problem: Problem) -> Iterator[Fault]:
    """Yield that a metric is to choose the best step which the task does not compute."""
    wanted, config = file.training.best_by, file.task.config
    usual = USUAL_METRICS.get(problem.kind)
    if wanted is None or not isinstance(config, DataSection) or config.metrics or usual is None:
        return
    known = (*usual, "loss")
    if wanted not in known:
        yield Fault(
            f"training.best_by: {unknown('metric of this task', wanted, known)}",
            kind="unknown",
            place=Place(key=("training", "best_by")),
            given=wanted,
            allowed=list(known),
            remedies=((f"Or have it computed: task.metrics: [{wanted}].",),),
        )
