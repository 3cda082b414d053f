"""The results of a run or a study as a block for a model card: scores with intervals, what was verified."""

from pathlib import Path

from graftlab.errors import ConfigError
from graftlab.report import answer, run_page
from graftlab.report.study_tables import groups, ranking
from graftlab.report.tables import markdown, plain
from graftlab.rundir.run import Run
from graftlab.runs import verification
from graftlab.study.records import Comparison


def of_run(path: Path) -> str:
    """Return the block of a run. `Raises:` ConfigError: it is not finished; CheckpointError: damaged."""
    run = Run(path)
    if not run.finished:
        raise ConfigError(f"{path} is not finished: it has no scores.", kind="not_finished")
    result = run.read_result()
    parts = [
        "## Results",
        markdown(run_page.scores(result)).rstrip(),
        "Verified:",
        _points(verification.verified(run, result)),
        "Not verified:",
        _points(verification.not_verified(run, result)),
    ]
    return "\n\n".join(parts) + "\n"


def of_study(comparison: Comparison) -> str:
    """Return the block of a study."""
    parts = ["## Results", plain(answer.question(comparison)), plain(answer.answer(comparison))]
    parts += [
        markdown(ranking(comparison, group, f"ranking{place}")).rstrip()
        for place, group in enumerate(groups(comparison))
    ]
    parts += ["Not measured:", _points(answer.not_measured(comparison))]
    return "\n\n".join(parts) + "\n"


def _points(lines: list[str]) -> str:
    return "\n".join(f"- {plain(line)}" for line in lines)
