"""What a search makes best: a metric on validation, or a cost."""

from dataclasses import dataclass

from graftlab.errors import ConfigError
from graftlab.rundir.run import Run
from graftlab.runs import material
from graftlab.runs.evaluation import higher_is_better
from graftlab.search.design import COSTS, Plan


@dataclass(frozen=True)
class Objective:
    """What a search makes best."""

    name: str
    higher: bool

    def of(self, run: Run) -> float | None:
        """Return a finished run's value; None where it is not defined."""
        result = run.read_result()
        if self.name == "trainable":
            return float(result["parameters"]["trainable"])
        if self.name == "seconds":
            return float(result["seconds"]["training"])
        if self.name == "memory":
            return (
                None if result["peak_memory_bytes"] is None else float(result["peak_memory_bytes"])
            )
        scores = result["metrics"].get("validation", {})
        if self.name not in scores:
            said = f"it reports {', '.join(scores)}" if scores else "it has no validation split"
            raise ConfigError(
                f"objective: no run of this task has {self.name} on validation: {said}."
            )
        value = scores[self.name]["value"]
        return None if value is None else float(value)


def objectives(plan: Plan) -> tuple[Objective, ...]:
    """Return what is made best; unless the file names it, the first metric of the task.

    Raises:
        GraftlabError: the data or the model of the base cannot be had.
    """
    names = plan.search.objective
    known: tuple[str, ...] = tuple(getattr(plan.file.task.config, "metrics", ()))
    if not names:
        known = known or tuple(material.load(plan.file, meta=True).task.metrics)
        names = known[:1]
    known = (*known, *names)
    return tuple(
        Objective(name, name not in (*COSTS, "loss") and higher_is_better(name, known))
        for name in names
    )
