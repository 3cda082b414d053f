"""A search that was stopped goes on as it would have gone, trial by trial."""

import signal
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from waiting import until

from graftlab import search
from graftlab.errors import ConfigError, SearchFailed
from graftlab.rundir.run import Run
from graftlab.search import Found, engine, first, limits, objective, storage, winner
from graftlab.search.watch import Watch

# Over a study in memory: what is asked for is optuna's, and nothing trains.

SEARCH = """
base:
  backbone: {kind: tiny, width: 8, layers: 1, max_length: 16}
  task: {kind: classification, files: {train: train.csv, test: test.csv}}
  method: {name: lora}
  training: {max_steps: 2, batch_size: 4}
space: {method.rank: {int: [1, 8]}}
"""
GRID = SEARCH.replace("[1, 8]", "[1, 3]") + "sampler: {name: grid}\n"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("train", "test"):
        rows = "".join(f"{'good' if n % 2 else 'bad'} {name} {n},{n % 2}\n" for n in range(30))
        (tmp_path / f"{name}.csv").write_text(f"text,label\n{rows}", encoding="utf-8")


@pytest.fixture
def study():
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study()


def read(tmp_path, text):
    (tmp_path / "search.yaml").write_text(text, encoding="utf-8")
    return search.read(tmp_path / "search.yaml", [])


def stop(study, **why):
    """Begin the next trial, and fail it as stopped or otherwise."""
    trial = study.ask()
    trial.suggest_int("method.rank", 1, 8)
    for key, value in (why or {first.STOPPED: True}).items():
        trial.set_user_attr(key, value)
    study.tell(trial, state=TrialState.FAIL)
    return trial


def waiting(study):
    return [t for t in study.get_trials() if t.state == TrialState.WAITING]


def test_a_trial_that_was_stopped_is_asked_for_again_however_often(tmp_path, study):
    plan = read(tmp_path, SEARCH)
    values = stop(study).params
    for _ in range(3):
        first.ask(plan, study)
        first.ask(plan, study)  # another worker comes
        (again,) = waiting(study)
        assert again.user_attrs[storage.RETRY_OF] == 0
        assert stop(study).params == values
    first.ask(plan, study)
    study.tell(study.ask(), 0.5)
    first.ask(plan, study)
    assert not waiting(study)


def test_what_was_stopped_and_has_failed_by_itself_since_is_not_asked_for_again(tmp_path, study):
    plan = read(tmp_path, SEARCH)
    stop(study)
    first.ask(plan, study)
    stop(study, **{storage.CAUSE: "it broke"})
    first.ask(plan, study)
    assert not waiting(study)


def test_a_grid_that_grew_gets_its_new_cells_alone(tmp_path, study):
    first.ask(read(tmp_path, GRID), study)
    stop(study)
    study.tell(study.ask(), 0.5)
    assert len(waiting(study)) == 1
    first.ask(read(tmp_path, GRID.replace("[1, 3]", "[1, 5]")), study)
    asked = [trial.system_attrs["fixed_params"]["method.rank"] for trial in waiting(study)]
    assert sorted(asked) == [1, 3, 4, 5]  # the first was stopped, the second has ended


def test_a_cell_that_was_killed_before_it_was_drawn_is_asked_for_again(tmp_path, study):
    first.ask(read(tmp_path, GRID), study)
    killed = study.ask()
    study.tell(killed, state=TrialState.FAIL)
    storage.ask_again(study, study.trials[killed.number])
    assert sorted(
        trial.system_attrs["fixed_params"]["method.rank"] for trial in waiting(study)
    ) == [1, 2, 3]


def test_a_random_search_that_was_stopped_draws_what_it_would_have_drawn(tmp_path):
    plan = read(tmp_path, SEARCH + "sampler: {name: random}\n")

    def drawn(stopped):
        study = optuna.create_study()
        values = []
        while len(values) < 6:
            known = storage.num_drawn(study)
            study.sampler = engine.sampler(plan.search.sampler, plan.search.seed, known)
            if len(values) in stopped:
                stopped = stopped[1:]
                stop(study)
                first.ask(plan, study)
                continue
            trial = study.ask()
            values.append(trial.suggest_int("method.rank", 1, 8))
            study.tell(trial, 0.5)
        return values

    assert drawn([2, 2, 4]) == drawn([])


@pytest.mark.parametrize("wanted", ["[accuracy]", "[accuracy, seconds]"])
def test_a_trial_that_others_took_for_dead_ends_without_saving(tmp_path, study, wanted):
    plan = read(tmp_path, f"{SEARCH}objective: {wanted}\n")
    trial = study.ask()
    watch = Watch(plan.search, objective.objectives(plan), trial, Run(tmp_path / "run"))
    assert (watch(), watch.taken) == (None, False)
    study.tell(trial.number, state=TrialState.FAIL)  # as another worker does
    assert (watch(), watch.taken) == (signal.SIGKILL, True)


@pytest.mark.slow
def test_a_trial_beyond_a_limit_is_pruned_and_counted_by_the_limit(tmp_path, study, caplog):
    plan = read(tmp_path, SEARCH + "at_most: {trainable: 10}\n")
    trial = study.ask()
    with pytest.raises(optuna.TrialPruned):
        limits.check(plan.search, trial, plan.document({"method.rank": 4}, "run"))
    study.tell(trial, state=TrialState.PRUNED)
    limits.tell(study.get_trials())
    assert [record.args for record in caplog.records] == [(1, "trainable")]
    assert limits.broken(study.get_trials()) == {"trainable": 1}


def test_what_cannot_be_planned_fails_and_is_not_pruned(tmp_path):
    text = SEARCH.replace("batch_size: 4", "batch_size: 999")  # of 27 examples
    plan = read(tmp_path, text + "at_most: {trainable: 1e9}\ntrials: 20\n")
    with pytest.raises(SearchFailed, match="3 times"):
        search.carry_out(plan, Path("out"), quiet=True)


@pytest.mark.slow
def test_a_worker_whose_trial_was_taken_for_dead_goes_on_with_others(tmp_path):
    text = SEARCH.replace("max_steps: 2", "max_steps: 1000") + "trials: 1\n"
    plan = read(tmp_path, text)

    runs = Path("out/runs").absolute()

    def take():
        until(lambda: list(runs.glob("*/metrics.jsonl")))
        held = storage.open_storage(None, Path("out"))
        other = optuna.load_study(study_name=plan.name, storage=held)
        other.tell(0, state=TrialState.FAIL)
        storage.ask_again(other, other.trials[0])

    with ThreadPoolExecutor(1) as threads:
        taken = threads.submit(take)
        found = search.carry_out(plan, Path("out"), quiet=True)
        taken.result()
    assert [trial.state.name for trial in found.trials] == ["FAIL", "COMPLETE"]
    assert storage.CAUSE not in found.trials[0].user_attrs
    assert found.trials[1].user_attrs[storage.RETRY_OF] == 0


def test_a_base_without_a_field_of_the_space_is_not_asked_for(tmp_path, study):
    text = SEARCH.replace("{name: lora}", "{name: bitfit}")
    space = "{method.rank: [4, 8], method.name: [lora, dora]}"  # bitfit has no rank
    first.ask(read(tmp_path, text.replace("{method.rank: {int: [1, 8]}}", space)), study)
    assert waiting(study) == []


def test_the_bases_own_values_are_known_for_them_also_when_asked_for_again(tmp_path, study):
    plan = read(tmp_path, SEARCH)
    first.ask(plan, study)
    stop(study)
    first.ask(plan, study)
    trial = study.ask()
    trial.suggest_int("method.rank", 1, 8)
    study.tell(trial, 0.5)
    wanted = objective.objectives(plan)
    found = Found(plan, tmp_path, wanted, tuple(study.get_trials()), study)
    assert winner.summary(found).default == 0.5


def ended(number, minute, cause=None, pruned=False):
    """Return a trial that has ended at a minute of a day."""
    failed = TrialState.PRUNED if pruned else TrialState.FAIL
    state = TrialState.COMPLETE if cause is None else failed
    trial = optuna.trial.create_trial(
        state=state, value=0.5 if cause is None else None,
        user_attrs={storage.CAUSE: cause} if cause else {},
    )  # fmt: skip
    trial.number, trial.datetime_complete = number, datetime(2026, 1, 1, 12, minute)
    return trial


def test_failures_are_counted_back_from_the_last_trial_that_ended_in_this_call():
    trials = [
        ended(0, 1, "disk"),
        ended(1, 2),
        ended(3, 5, "disk"),
        ended(2, 4, "disk"),
        ended(4, 3),
    ]
    noon = datetime(2026, 1, 1, 12)
    assert storage.failures_in_a_row(trials, noon) == 2
    assert storage.failures_in_a_row(trials, noon + timedelta(minutes=5)) == 1
    assert storage.failures_in_a_row([*trials, ended(5, 6)], noon) == 0
    assert (
        storage.failures_in_a_row(trials[:1], noon + timedelta(minutes=2)) == 0
    )  # of an earlier call
    limited = ended(5, 6, "trainable would be 99", pruned=True)
    assert storage.failures_in_a_row([*trials, limited], noon) == 0


def test_an_objective_that_a_run_does_not_report_is_said_with_what_it_reports(tmp_path):
    class Finished:
        def read_result(self):
            return {"metrics": {"validation": {"accuracy": {"value": 1.0}}}}

    with pytest.raises(ConfigError, match="accuracy"):
        objective.Objective("bleu", True).of(Finished())
