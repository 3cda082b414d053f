"""`graftlab select --check`: PiFi trained briefly at every layer, and whether the scores foretold it."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from graftlab.errors import ConfigError, StudyIncomplete
from graftlab.rundir import files

if TYPE_CHECKING:
    from graftlab.runfile import RunFile
    from graftlab.study.comparison import Done

NAME, STUDY = "check.json", "check.yaml"


class Plan(NamedTuple):
    """How much is trained."""

    steps: int
    subset: int | None
    """So many layers, drawn; None: all that were scored."""
    seed: int


def carry_out(
    file: "RunFile", selection: Mapping[str, Any], out: Path, plan: Plan, quiet: bool
) -> dict[str, Any]:
    """Return how scores and results agree, and write it as check.json.

    The trainings are a study, `out`/check.yaml: ordinary runs below `out`/check, each in a process of its
    own; those that are finished are not repeated.

    Raises:
        ConfigError: there are too few layers, or no validation split.
        StudyIncomplete: a run did not finish.
        Stopped: a signal came; the same command goes on.
    """
    from graftlab import config, registry, study
    from graftlab.selection.agreement import agreement, regret, statement

    trained = layers(selection, plan)
    files.write_text(out / STUDY, config.dump(study_file(file, trained, plan)))
    planned = study.read(out / STUDY)
    again = "the same `graftlab select` command"
    done = study.carry_out(planned, out / "check", quiet, again)
    if missing := [run.planned.name for run in done if run.cause]:
        raise StudyIncomplete(
            f"{len(missing)} of {len(done)} runs did not finish: {missing[0]}, ..."
        )
    metric, results, errors = _results(done)
    scored = {layer["layer"]: layer for layer in selection["layers"]}
    mixed = [scored[layer]["score"] for layer in results]
    higher = metric != "loss" and bool(registry.find("metrics", metric).HIGHER_IS_BETTER)
    sign = 1 if higher else -1
    values = [sign * value for value in results.values()]
    by_score = {
        name: agreement([scored[i]["scores"][name]["value"] for i in results], values, plan.seed)
        for name in selection["layers"][0]["scores"]
    }
    found = agreement(mixed, values, plan.seed)
    cost = regret(results, selection["best_llm_layer"], max(scored), higher)
    report = {
        "statement": statement(found, cost, metric, max(errors, default=None)),
        "metric": metric,
        "steps": plan.steps,
        "seed": plan.seed,
        "results": {str(layer): value for layer, value in results.items()},
        "agreement": found._asdict(),
        "agreement_of_each_score": {name: one._asdict() for name, one in by_score.items()},
        "regret": cost._asdict(),
    }
    files.write_json(out / NAME, report)
    return report


def refuse_few(plan: Plan, count: int | None) -> None:
    """Refuse to rank fewer than three layers: ranks of two say nothing. `count` None: not known yet.

    Raises:
        ConfigError: there are fewer.
    """
    if any(number is not None and number < 3 for number in (count, plan.subset)):
        raise ConfigError(
            "--check ranks layers: three are wanted at least, by --layers and --subset."
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


def _results(done: "list[Done]") -> tuple[str, dict[int, float], list[float]]:
    """Return the validation metric, its value at each layer, and its standard errors."""
    from graftlab.rundir.run import Run

    metric, found, errors = "", {}, []
    for run in done:
        assert run.folder is not None
        scores = Run(run.folder).read_result()["metrics"].get("validation")
        if not scores:
            raise ConfigError("--check compares by validation, and this task has none.")
        metric = next(iter(scores))
        if (value := scores[metric]["value"]) is None:
            raise ConfigError(
                f"--check: validation {metric} is undefined: {scores[metric]['reason']}."
            )
        found[int(run.planned.file.method.config.layer)] = float(value)
        if (error := scores[metric].get("standard_error")) is not None:
            errors.append(float(error))
    return metric, found, errors
