"""A selection checked: PiFi trained briefly at every layer, and whether the scores foretold the results."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from graftlab import config
from graftlab.errors import ConfigError, StudyIncomplete
from graftlab.rundir import files
from graftlab.rundir.run import Run
from graftlab.runs import evaluation
from graftlab.selection.agreement import Agreement, Regret, agreement, regret, statement
from graftlab.study import design, queue

if TYPE_CHECKING:
    from graftlab.runfile import RunFile
    from graftlab.study.records import Done

NAME, STUDY = "check.json", "check.yaml"


class Plan(NamedTuple):
    """How much is trained."""

    steps: int
    subset: int | None
    """So many layers, drawn; None: all that were scored."""
    seed: int


class Results(NamedTuple):
    """What the trained layers have reached on validation."""

    metric: str
    values: dict[int, float]
    """By layer."""
    errors: list[float]
    """Standard errors, where there are some."""


@dataclass(frozen=True)
class LayerCheck:
    """How scores and results agree."""

    statement: str
    metric: str
    steps: int
    seed: int
    results: Mapping[int, float]
    """The metric at each layer that was trained."""
    agreement: Agreement
    agreement_of_each_score: Mapping[str, Agreement]
    regret: Regret

    def as_json(self) -> dict[str, Any]:
        """Return what check.json holds."""
        by_score = {name: one._asdict() for name, one in self.agreement_of_each_score.items()}
        return {
            **asdict(self),
            "results": {str(layer): value for layer, value in self.results.items()},
            "agreement": self.agreement._asdict(),
            "agreement_of_each_score": by_score,
            "regret": self.regret._asdict(),
        }


def carry_out(
    file: "RunFile",
    selection: Mapping[str, Any],
    out: Path,
    plan: Plan,
    *,
    quiet: bool = False,
    again: str = "the same call",
) -> LayerCheck:
    """Return how scores and results agree, and write it as check.json.

    The trainings are a study, `out`/check.yaml: ordinary runs below `out`/check, each in a process of its
    own; those that are finished are not repeated. `again` is the command that goes on with it.

    Raises:
        ConfigError: there are too few layers, or no validation split.
        StudyIncomplete: a run did not finish.
        Stopped: a signal came; the same command goes on.
    """
    trained = layers(selection, plan)
    files.write_text(out / STUDY, config.dump(study_file(file, trained, plan)))
    done = queue.carry_out(design.read(out / STUDY), out / "check", quiet, again)
    if missing := [run.planned.name for run in done if run.cause]:
        raise StudyIncomplete(
            f"{len(missing)} of {len(done)} runs did not finish: {missing[0]}, ..."
        )
    found = compare(selection, _results(done), plan)
    files.write_json(out / NAME, found.as_json())
    return found


def compare(selection: Mapping[str, Any], found: Results, plan: Plan) -> LayerCheck:
    """Return how the scores of a selection agree with what training at its layers has given."""
    scored = {layer["layer"]: layer for layer in selection["layers"]}
    higher = evaluation.higher_is_better(found.metric, [found.metric])
    values = [value if higher else -value for value in found.values.values()]
    by_score = {
        name: agreement(
            [scored[i]["scores"][name]["value"] for i in found.values], values, plan.seed
        )
        for name in selection["layers"][0]["scores"]
    }
    agreed = agreement([scored[i]["score"] for i in found.values], values, plan.seed)
    cost = regret(found.values, selection["best_llm_layer"], max(scored), higher)
    said = statement(agreed, cost, found.metric, max(found.errors, default=None))
    return LayerCheck(
        statement=said,
        metric=found.metric,
        steps=plan.steps,
        seed=plan.seed,
        results=found.values,
        agreement=agreed,
        agreement_of_each_score=by_score,
        regret=cost,
    )


def refuse_few(plan: Plan, count: int | None) -> None:
    """Refuse to rank fewer than three layers: ranks of two say nothing. `count` None: not known yet.

    Raises:
        ConfigError: there are fewer.
    """
    if any(number is not None and number < 3 for number in (count, plan.subset)):
        raise ConfigError(
            "the check ranks layers: three are wanted at least, to choose from and to train at.",
            kind="too_few",
        )


def layers(selection: Mapping[str, Any], plan: Plan) -> list[int]:
    """Return the layers to train: all that were scored, or the chosen, the last and others drawn.

    Raises:
        ConfigError: there are fewer than three.
    """
    import numpy as np

    from graftlab.seeds import mix

    scored = [layer["layer"] for layer in selection["layers"]]
    refuse_few(plan, len(scored))
    if plan.subset is None or plan.subset >= len(scored):
        return scored
    kept = {selection["best_llm_layer"], scored[-1]}
    others = [layer for layer in scored if layer not in kept]
    draws = np.random.default_rng(mix(plan.seed, "check"))
    drawn = draws.choice(others, plan.subset - len(kept), replace=False)
    return sorted(kept | {int(layer) for layer in drawn})


def study_file(file: "RunFile", trained: list[int], plan: Plan) -> dict[str, Any]:
    """Return the study: the run file as it is, at each layer, for so many steps."""
    resolved = {
        key: value for key, value in file.resolved.items() if key not in ("name", "tracking")
    }
    training = {**resolved["training"], "max_steps": plan.steps, "save_every": 0, "select": "best"}
    warmup = training["schedule"]["warmup"]
    if warmup >= 1 and warmup > plan.steps:  # steps of the long run
        training["schedule"] = {**training["schedule"], "warmup": 0.1}
    method = {**resolved["method"], "layer": trained[0]}
    return {
        "name": "check",
        "base": {**resolved, "method": method, "training": training},
        "vary": {"method.layer": trained},
        "seeds": [plan.seed],
    }


def _results(done: "list[Done]") -> Results:
    """Return what finished runs have reached on validation.

    Raises:
        ConfigError: there is no validation split, or its metric is undefined.
    """
    metric, values, errors = "", dict[int, float](), list[float]()
    for run in done:
        assert run.folder is not None
        scores = Run(run.folder).read_result()["metrics"].get("validation")
        if not scores:
            raise ConfigError("the check compares by validation, and this task has none.")
        metric = next(iter(scores))
        if (value := scores[metric]["value"]) is None:
            raise ConfigError(
                f"the check: validation {metric} is undefined: {scores[metric]['reason']}."
            )
        values[int(run.planned.file.method.config.layer)] = float(value)
        if (error := scores[metric].get("standard_error")) is not None:
            errors.append(float(error))
    return Results(metric, values, errors)
