"""A run that reads vectors is used on vectors and on texts: each asked as it says, or as all are."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faults import fault
from finished_runs import finish
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner
from vector_runs import TEXTS, finish_reader, make_embedder, make_vectors, opened

import graftlab
from graftlab import cli, inference
from graftlab.data.vectors import store
from graftlab.data.vectors.origin import Origin
from graftlab.data.vectors.store import Vectors
from graftlab.encoders import embedder
from graftlab.errors import ConfigError, DataError, GraftlabError, ModelError
from graftlab.inference import Inputs, Reading
from graftlab.release.push import contents
from graftlab.tasks.elm import tree


@pytest.fixture(scope="module")
def folder(tmp_path_factory: Any) -> Path:
    made: Path = tmp_path_factory.mktemp("readers")
    return made


@pytest.fixture(scope="module")
def run(folder: Path) -> Any:
    return finish_reader(folder)


@pytest.fixture(scope="module")
def adapted(run: Any) -> Any:
    return graftlab.load(run.path)


@pytest.fixture(scope="module")
def test_rows(folder: Path) -> Path:
    found: Path = folder / "vectors" / "test" / tree.ROWS
    return found


def vectors_of(folder: Path) -> Any:
    return Vectors(folder / "vectors" / "test" / tree.VECTORS).take(slice(None))


def completions(answers: list[dict[str, Any]]) -> list[str]:
    return [answer["completion"] for answer in answers]


def move(weights: Path) -> None:
    """Add one half to each weight in a file."""
    save_file({name: weight + 0.5 for name, weight in load_file(weights).items()}, weights)


def invoke(*arguments: object, stdin: str | None = None) -> Any:
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments], input=stdin)


def test_all_forms_of_a_vector_are_answered_as_the_run_has_answered(
    adapted: Any, folder: Path, test_rows: Path, tmp_path: Path
) -> None:
    """A run's own rows, which name their vectors; rows that carry them; files and tables of vectors."""
    task, *_ = adapted.predictions("test")
    expected = [row["prediction"] for row in task.complete(adapted.model, "test", [0, 1, 2])]
    drawn = vectors_of(folder)
    assert len(set(map(str, expected))) > 1
    kinds = ["category", "summary", "category"]
    rows = [{"vector": v.tolist(), "task_type": k} for v, k in zip(drawn, kinds, strict=True)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for given in (test_rows, rows, tmp_path / "rows.jsonl"):
        assert completions(adapted.predict(given)) == expected
    np.save(tmp_path / "v.npy", drawn[[0, 2]])
    save_file({"v": drawn[[0, 2]]}, tmp_path / "v.safetensors")
    for given in (
        tmp_path / "v.npy",
        tmp_path / "v.safetensors",
        drawn[[0, 2]],
        list(drawn[[0, 2]]),
    ):
        assert completions(adapted.predict(given, task="category")) == [expected[0], expected[2]]


def test_a_text_is_asked_about_by_its_vector(adapted: Any, folder: Path, tmp_path: Path) -> None:
    texts = list(TEXTS[:4])
    vectors = opened(folder / "embedder").encode(texts, 32)
    expected = completions(adapted.predict(vectors, task="summary"))
    (tmp_path / "a.txt").write_text("\n".join(texts) + "\n")
    rows = [{"text": text, "task_type": "summary", "id": i} for i, text in enumerate(texts)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "a.csv").write_text("".join(f"{text},9\n" for text in ["text", *texts]))
    for given in (texts, tmp_path / "a.txt", rows, tmp_path / "a.jsonl", tmp_path / "a.csv"):
        assert completions(adapted.predict(given, task="summary")) == expected
    assert completions(adapted.predict(texts[0], task="summary")) == expected[:1]
    mixed: list[Any] = [
        {"vector": vectors[0]},
        {"text": texts[1]},
        {"vector": vectors[2]},
        texts[3],
    ]
    assert completions(adapted.predict(mixed, task="summary")) == expected


def test_a_run_that_was_pushed_reads_vectors_and_texts_as_before(
    run: Any, adapted: Any, folder: Path, tmp_path: Path
) -> None:
    """And nothing in it names a folder of the machine that it comes from."""
    there, drawn = tmp_path / "shared", vectors_of(folder)
    there.mkdir()
    shared = contents.read(run.path)
    for name, content in contents.gather(shared).items():
        data = content if isinstance(content, bytes) else content.read_bytes()
        assert str(folder).encode() not in data, name
        (there / name).write_bytes(data)
    again = graftlab.load(there)
    expected = completions(adapted.predict(drawn, task="summary"))
    assert completions(again.predict(drawn, task="summary")) == expected
    where = Reading(embedder=str(folder / "embedder"))
    expected = completions(adapted.predict(TEXTS[:2], task="summary"))
    assert completions(again.predict(TEXTS[:2], task="summary", reading=where)) == expected


def test_what_a_row_asks_goes_before_what_is_asked_of_all(adapted: Any, folder: Path) -> None:
    vector = vectors_of(folder)[1]
    own = {"vector": vector, "task_type": "keywords"}
    [expected] = adapted.predict([own])
    assert adapted.predict([own], task="summary") == [expected]
    assert adapted.predict([{"vector": vector}], task="keywords") == [expected]
    words = {"vector": vector, "query": "And so?"}
    [said] = adapted.predict([words])
    assert adapted.predict([{"vector": vector}], reading=Reading(query="And so?")) == [said]
    assert adapted.predict([{**own, "query": "And so?"}]) == [expected]
    carried = {"vector": vector, "task_type": "counterfactual", "domain": "the sea"}
    assert adapted.predict([carried])[0]["completion"] is not None


@pytest.mark.slow
def test_a_run_on_its_rows_own_words_is_asked_in_words(folder: Path) -> None:
    adapted = graftlab.load(finish_reader(folder, "words", task={"prompts": "rows"}).path)
    vector = vectors_of(folder)[0]
    [expected] = adapted.predict([{"vector": vector, "query": "What? "}])
    assert adapted.predict([vector], reading=Reading(query="What? ")) == [expected]
    with pytest.raises(ConfigError, check=fault("conflict")):
        adapted.predict([vector], task="summary")
    with pytest.raises(DataError, check=fault("unusable")):
        adapted.predict([{"vector": vector, "task_type": "summary"}])


@pytest.mark.slow
def test_the_command_writes_each_answer_beside_its_row(
    run: Any, adapted: Any, folder: Path, test_rows: Path, tmp_path: Path
) -> None:
    expected = completions(adapted.predict(test_rows))
    for suffix in ("jsonl", "csv", "parquet"):
        out = tmp_path / f"answers.{suffix}"
        done = invoke("predict", run.path, "--input", test_rows, "--output", out)
        assert done.exit_code == 0, done.output
        assert out.is_file()
    lines = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert [line["completion"] for line in lines] == expected
    assert [line["input"]["embedding_file_idx"] for line in lines] == [0, 1, 2]
    header, *_ = (tmp_path / "answers.csv").read_text().splitlines()
    assert header == "row,task_type,embedding_file_idx,query,response,prediction"
    vectors = test_rows.with_name(tree.VECTORS)
    out = tmp_path / "of_vectors.csv"
    done = invoke("predict", run.path, "--input", vectors, "--task", "summary", "--output", out)
    assert done.exit_code == 0, done.output
    assert out.read_text().splitlines()[0] == "row,prediction"
    assert not [path for path in vectors.parent.iterdir() if path.name.startswith("v.")]
    done = invoke("predict", run.path, "--input", "-", "--task", "summary", stdin="a b c\nd e f\n")
    assert [json.loads(line) for line in done.stdout.splitlines()] == adapted.predict(
        ["a b c", "d e f"], task="summary"
    )


def test_a_column_of_vectors_stands_in_no_table_of_answers(
    run: Any, folder: Path, tmp_path: Path
) -> None:
    row = {"id": 7, "vector": vectors_of(folder)[0].tolist(), "task_type": "summary"}
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n")
    out = tmp_path / "out.jsonl"
    assert (
        invoke("predict", run.path, "--input", tmp_path / "a.jsonl", "--output", out).exit_code == 0
    )
    assert json.loads(out.read_text())["input"] == {"id": 7, "task_type": "summary"}


# What cannot be asked: told before anything is loaded


def refused(
    run: Any,
    source: Any,
    error: type[GraftlabError],
    kind: str,
    task: str | None = "summary",
    **more: Any,
) -> None:
    with pytest.raises(error, check=fault(kind)):
        inference.check(run.path, False, {}, None, Inputs(source, task, Reading(**more)))


def test_vectors_that_are_not_like_the_runs_are_refused(
    run: Any, folder: Path, tmp_path: Path
) -> None:
    drawn = vectors_of(folder)
    np.save(tmp_path / "narrow.npy", drawn[:, 1:])
    refused(run, tmp_path / "narrow.npy", DataError, "other_width")
    refused(run, [[1.0, 2.0]], DataError, "other_width")
    bad = drawn.copy()
    bad[1, 3] = np.nan
    np.save(tmp_path / "nan.npy", bad)
    with pytest.raises(DataError) as raised:
        inference.check(run.path, False, {}, None, Inputs(tmp_path / "nan.npy", "summary"))
    assert (raised.value.problems[0].kind, raised.value.problems[0].place.row) == ("unusable", 2)
    np.save(tmp_path / "zero.npy", drawn * 0)
    refused(run, tmp_path / "zero.npy", DataError, "unusable")
    own = Vectors(folder / "vectors" / "test" / tree.VECTORS).origin
    assert own is not None
    other = Origin.from_json({**own.as_json(), "sha256": {"model.safetensors": "another"}})
    store.write(tmp_path / "other.safetensors", drawn, other)
    refused(run, tmp_path / "other.safetensors", DataError, "other_embedder")
    inference.check(
        run.path, False, {}, None,
        Inputs(tmp_path / "other.safetensors", "summary", Reading(other_embedder=True)),
    )  # fmt: skip


def test_questions_that_are_none_are_refused(run: Any, folder: Path, tmp_path: Path) -> None:
    vector = vectors_of(folder)[0]
    refused(run, [vector], ConfigError, "unknown", task="sumary")
    refused(run, [vector], ConfigError, "unknown", task="compare")
    refused(run, [vector], ConfigError, "conflict", query="And?")
    refused(run, [vector], DataError, "unusable", task=None)
    refused(run, [vector], DataError, "unusable", task="counterfactual")
    refused(run, [{"task_type": "summary"}], DataError, "unusable")
    refused(run, [{"text": " "}], DataError, "unusable")
    refused(
        run,
        [{"vector": vector, "messages": [{"role": "user", "content": "a"}]}],
        DataError,
        "unusable",
    )
    refused(run, [], DataError, "empty")
    refused(run, [vector], ConfigError, "idle", embedder="somewhere")
    refused(run, folder, DataError, "not_allowed")
    (tmp_path / "rows.jsonl").write_text('{"embedding_file_idx": 0}\n')
    refused(run, tmp_path / "rows.jsonl", DataError, "missing")
    np.save(tmp_path / "embeddings.npy", vector[None])
    (tmp_path / "rows.jsonl").write_text('{"embedding_file_idx": 0}\n{"embedding_file_idx": 1}\n')
    refused(run, tmp_path / "rows.jsonl", DataError, "unusable")


@pytest.mark.slow
def test_options_for_vectors_are_for_runs_that_read_them(tmp_path: Path) -> None:
    run = finish(tmp_path, {"name": "lora"})
    for more in ({"query": "a"}, {"embedder": "b"}, {"other_embedder": True}, {"pooling": "cls"}):
        refused(run, "fine", ConfigError, "conflict", task=None, **more)


def test_pooling_that_is_known_or_pools_nothing_is_refused(run: Any, folder: Path) -> None:
    refused(run, "a b c", ConfigError, "idle", pooling="cls")
    refused(run, vectors_of(folder), ConfigError, "idle", pooling="cls")


# The embedding model of texts


def test_another_embedding_model_is_refused_by_its_hash_unless_it_is_wanted(
    run: Any, adapted: Any, folder: Path, tmp_path: Path
) -> None:
    same, other = tmp_path / "same", tmp_path / "other"
    shutil.copytree(folder / "embedder", same)
    make_embedder(other)
    weights = other / "model.safetensors"
    move(weights)
    expected = adapted.predict("a b c", task="summary")
    assert adapted.predict("a b c", task="summary", reading=Reading(embedder=str(same))) == expected
    with pytest.raises(ModelError, check=fault("other_embedder")):
        adapted.predict("a b c", task="summary", reading=Reading(embedder=str(other)))
    taken = Reading(embedder=str(other), other_embedder=True)
    assert adapted.predict("a b c", task="summary", reading=taken)


@pytest.mark.slow
def test_a_model_whose_weights_have_changed_where_it_was_is_refused(
    folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(folder / "embedder", tmp_path / "embedder")
    data = make_vectors(tmp_path / "vectors", tmp_path / "embedder")
    run = finish_reader(tmp_path, task={"data_dir": str(data)})
    adapted = graftlab.load(run.path)
    move(tmp_path / "embedder" / "model.safetensors")
    with pytest.raises(ModelError, check=fault("other_embedder")):
        adapted.predict("a b c", task="summary")


@pytest.mark.slow
def test_texts_of_a_run_whose_vectors_tell_nothing_want_a_model(
    folder: Path, tmp_path: Path
) -> None:
    data = make_vectors(tmp_path / "untold", folder / "embedder", known=False)
    run = finish_reader(folder, "untold", task={"data_dir": str(data)})
    refused(run, "a b c", ConfigError, "unknown_embedder")
    refused(run, "a b c", ConfigError, "unknown_embedder", embedder=str(folder / "embedder"))
    adapted, here = graftlab.load(run.path), str(folder / "embedder")
    unpooled = Reading(embedder=here, other_embedder=True)
    with pytest.raises(ConfigError, check=fault("missing")):  # the model does not say it itself
        adapted.predict("a b c", task="summary", reading=unpooled)
    texts = ["a b c", "h"]
    for pooling in ("mean", "cls"):
        made = embedder.load(embedder.Request(here, pooling=pooling)).encode(texts, 2)
        asked = Reading(embedder=here, other_embedder=True, pooling=pooling)
        answers = adapted.predict(texts, task="summary", reading=asked)
        assert completions(answers) == completions(adapted.predict(made, task="summary"))
    inference.check(run.path, False, {}, None, Inputs(vectors_of(folder), "summary"))
