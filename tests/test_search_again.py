"""A search that was stopped goes on as it would have gone, trial by trial."""

import optuna
import pytest
from optuna.trial import TrialState

from graftlab import search
from graftlab.search import engine, first, storage

SEARCH = """
base:
  backbone: {kind: tiny, width: 8, layers: 1, max_length: 16}
  task: {kind: classification, files: {train: train.csv, test: test.csv}}
  method: {name: lora}
space: {method.rank: {int: [1, 8]}}
"""
GRID = SEARCH.replace("[1, 8]", "[1, 3]") + "sampler: {name: grid}\n"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("train", "test"):
        (tmp_path / f"{name}.csv").write_text("text,label\ngood,1\nbad,0\n", encoding="utf-8")


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
