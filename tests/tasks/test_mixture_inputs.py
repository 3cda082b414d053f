"""New inputs of a mixture: each says its task, and a row that cannot be read is none."""

import pytest

from graftlab.config import Paths
from graftlab.errors import DataError
from graftlab.tasks import mixture


def test_inputs_say_their_task(tmp_path):
    section = mixture.example(tmp_path)
    read = mixture.read_inputs
    rows = read(
        section, [{"task": "size", "text": "b"}, "mood: a: c", '{"task": "mood", "text": "d"}']
    )
    assert [(row["task"], row["text"], row["index"]) for row in rows] == [
        ("size", "b", 0), ("mood", "a: c", 1), ("mood", "d", 2),
    ]  # fmt: skip
    assert read(section, ["a: c"], task="size")[0]["text"] == "a: c"
    file = tmp_path / "in.jsonl"
    file.write_text('{"task": "mood", "text": "x"}\n{"task": "mood", "text": 3}\n')
    for source, words in (
        (["plain"], r"row 1: it does not say its task.*mood, size"),
        ([{"text": "a"}], "key 'task' is missing; the tasks are mood, size"),
        ([{"task": "moods", "text": "a"}], "key 'task' is 'moods'"),
        (file, r"in.jsonl, row 2: mood: column 'text' is 3"),
    ):
        with pytest.raises(DataError, match=words):
            read(section, source)


def test_rows_of_a_task_that_cannot_be_used_are_left_out_by_its_own_key(tmp_path):
    section = mixture.example(tmp_path)
    with (tmp_path / "size" / "train.csv").open("a") as file:
        file.write("a,\nb,\n")
    with pytest.raises(DataError, match=r"task\.tasks\.size\.skip_bad: 2"):
        mixture.read(section, Paths(), 0)


BROKEN = {  # how a file's second row cannot be read
    "a.jsonl": (b'{"text": "a: c"}\n{"text": broken}\n', "not JSON"),
    "b.jsonl": (b'{"text": "a: c"}\n["a"]\n', "not a JSON object but a list"),
    "a.csv": (b"text,other\na: c,1\nb,2,3\n", "3 fields"),
    "a.txt": (b"mood: a: c\nmood: \x81\n", "not UTF-8"),
}


@pytest.mark.parametrize("task", ["mood", None])
@pytest.mark.parametrize("name", BROKEN)
def test_a_row_that_cannot_be_read_is_refused_and_not_predicted_on(tmp_path, name, task):
    section = mixture.example(tmp_path)
    path, (content, why) = tmp_path / name, BROKEN[name]
    if task is None:  # rows say it themselves
        content = content.replace(b'{"text"', b'{"task": "mood", "text"').replace(b"other", b"task")
        content = content.replace(b"a: c,1", b"a: c,mood")
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"{name}, row 2: .*{why}"):
        mixture.read_inputs(section, path, task)
