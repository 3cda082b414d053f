"""Messy files of one's own are read as they were meant, said to be read so, or refused with their place."""

import gzip
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faults import fault
from PIL import Image

from graftlab.config import Paths
from graftlab.contracts import read_notes
from graftlab.data import pictures, readers
from graftlab.data.labels import Unusable
from graftlab.errors import ConfigError, DataError
from graftlab.tasks import classification, generation, images, multiple_choice

ROWS = [(f"Größe {i}, weiß", ("gut", "übel")[i % 2]) for i in range(20)]


def read(path: Path, **fields: Any) -> Any:
    config = classification.Config(files={"train": path}, **fields)
    return classification.read(config, Paths(), seed=0)


def in_file_order(data: Any) -> list[tuple[str, str]]:
    rows = sorted((row for rows in data.splits.values() for row in rows), key=lambda r: r["index"])
    return [(row["text"], data.problem.labels[row["label"]]) for row in rows]


def said(data: Any, kind: str) -> list[dict[str, Any]]:
    return [dict(note.fields) for note in read_notes(data.record["notes"]) if note.kind == kind]


def table(delimiter: str, end: str = "\n") -> str:
    lines = [("text", "label"), *ROWS]
    return end.join(delimiter.join(f'"{cell}"' for cell in line) for line in lines) + end


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\r\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiter_encoding_and_line_ends_are_found(
    delimiter: str, encoding: str, end: str, packed: bool, tmp_path: Path
) -> None:
    path = tmp_path / ("d.csv.gz" if packed else "d.csv")
    content = table(delimiter, end).encode(encoding)
    path.write_bytes(gzip.compress(content) if packed else content)
    data = read(path)
    assert in_file_order(data) == ROWS
    expected = {} if encoding.startswith("utf-8") else {"encoding": encoding}
    expected |= {"line_end": "CR"} if end == "\r" else {}
    expected |= {} if delimiter == "," else {"delimiter": delimiter}
    assert [note["found"] for note in said(data, "read_as")] == ([expected] if expected else [])


def test_what_is_given_overrules_what_is_found(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_bytes("text;label\n日本;x\n東京;y\n大阪;x\n".encode("euc_jp"))
    assert in_file_order(read(path, encoding="euc_jp"))[0] == ("日本", "x")
    with pytest.raises(DataError, match=r"task\.encoding"):
        read(path, encoding="utf-16")
    with pytest.raises(DataError, match="no column 'text'"):
        read(path, encoding="euc_jp", delimiter="|")


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("d.jsonl", "delimiter", ";"),
        ("d.jsonl", "quoting", "none"),
        ("d.parquet", "encoding", "utf-8"),
    ],
)
def test_a_key_without_effect_is_refused(name: str, key: str, value: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("x")
    with pytest.raises(ConfigError, check=fault("idle", f"task.{key}")):
        read(tmp_path / name, **{key: value})


def test_an_encoding_that_is_none_and_keys_for_no_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no encoding 'utf-42'"):
        classification.Config(data_dir=tmp_path, encoding="utf-42")
    with pytest.raises(ValueError, match="for local files"):
        classification.Config(source="a:b", labels=["x", "y"], delimiter=";")


def test_excels_directive_names_the_delimiter_and_is_no_row(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text("sep=;\ntext;label\na, b;x\nc;y\n\nd;x\n")
    assert in_file_order(read(path)) == [("a, b", "x"), ("c", "y"), ("d", "x")]


def test_rows_with_nothing_in_any_cell_are_passed_over_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    lines = [
        ";;",
        "nr;text;label",
        "1;a;x",
        ";;",
        '; ;""',
        "2;b;y",
        "",
        "3;;x",
        ";;;;",
        "4;c;y",
        ";;",
    ]
    path.write_text("\r\n".join(lines) + "\r\n")
    data = read(path)
    found = sorted((row["index"], row["text"]) for rows in data.splits.values() for row in rows)
    assert found == [(0, "a"), (3, "b"), (5, ""), (7, "c")]  # as a spreadsheet counts its rows
    assert said(data, "rows_blank") == [{"file": str(path), "count": 5}]


def test_columns_of_one_name_are_told_apart_by_their_number(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text(
        "text,label,text,,\n" + "".join(f"a{i},{'xy'[i % 2]},b{i},,\n" for i in range(9))
    )
    with pytest.raises(DataError, match=r"text\.1") as caught:
        read(path)
    [problem] = caught.value.problems
    assert problem.allowed == ["text.1", "label", "text.2", "column 4", "column 5"]
    for number, letter in enumerate("ab", start=1):
        data = read(path, columns={"text": f"text.{number}"})
        assert in_file_order(data)[2] == (f"{letter}2", "x")
    path.write_text("a,a,a.1\n")
    with pytest.raises(DataError, match="stands twice"):
        read(path)


SCORES: dict[
    str, tuple[list[Any], list[float] | None]
] = {  # of a column: all, or None where refused
    "commas": (["3,5", "4", "-0,25", "1,234", ",5"], [3.5, 4, -0.25, 1.234, 0.5]),
    "less than one is no thousand": (["0,125", "1,234"], [0.125, 1.234]),
    "points": (["3.5", "4", "1e-3"], [3.5, 4, 0.001]),
    "thousands or decimals": (["1,234", "2,500", "3"], None),
    "both": (["3,5", "3.5"], None),
    "a number of JSON beside it": (["3,5", 3.5], None),
    "thousands": (["1,234,567", "1,000,000"], None),
    "thousands with points": (["1.234,5", "2,5"], None),
}


@pytest.mark.parametrize("case", SCORES)
def test_decimal_commas_are_read_where_nothing_else_can_be_meant(case: str, tmp_path: Path) -> None:
    given, expected = SCORES[case]
    rows = [{"text": f"t{i}", "label": value} for i, value in enumerate(given * 3)]
    path = tmp_path / "d.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    if expected is None:
        with pytest.raises(DataError, check=fault("unusable")):
            read(path, regression=True)
        return
    data = read(path, regression=True)
    found = {row["index"]: row["label"] for rows in data.splits.values() for row in rows}
    assert [found[i] for i in range(len(given))] == expected
    assert len(said(data, "decimal_commas")) == any("," in str(value) for value in given)
    with pytest.raises(DataError, check=fault("not_classes")):
        read(path)


def test_commas_in_texts_do_not_part_a_table_of_semicolons(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text(
        "id, old;text;label\n" + "".join(f"{i};a, b, c {i};{'xy'[i % 2]}\n" for i in range(9))
    )
    assert in_file_order(read(path))[2] == ("a, b, c 2", "x")


def test_quotes_of_a_tab_separated_table_that_are_only_quotes_are_text(tmp_path: Path) -> None:
    texts = [
        f'"so {i}' if i % 3 == 0 else f'he said "{i}"' if i % 3 == 1 else f'{i}"' for i in range(40)
    ]
    path = tmp_path / "d.tsv"
    path.write_text("text\tlabel\n" + "".join(f"{t}\t{'xy'[i % 2]}\n" for i, t in enumerate(texts)))
    data = read(path)
    assert [text for text, _ in in_file_order(data)] == texts
    assert said(data, "read_as") == [{"file": str(path), "found": {"quoting": "none"}}]


def test_quotes_that_quote_still_do(tmp_path: Path) -> None:
    path = tmp_path / "d.tsv"
    path.write_text('text\tlabel\n"a\tb"\tx\n"two\nlines ""here"""\ty\n"c"\tx\n')
    data = read(path)
    assert [text for text, _ in in_file_order(data)] == ["a\tb", 'two\nlines "here"', "c"]
    assert not data.record["notes"] or not said(data, "read_as")


def test_a_table_of_commas_whose_rows_may_have_become_one_is_said(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text('text,label\na,x\n"b,y\nc,x\nd",y\ne,x\nf,y\n')
    data = read(path)
    assert said(data, "quotes_open") == [{"file": str(path), "line": 3}]
    assert len(in_file_order(data)) == 4
    assert len(in_file_order(read(path, quoting="none"))) == 6


@pytest.mark.parametrize("label", [["a"], [], {"a": 1}, ["a", "b"]])
def test_a_list_or_a_mapping_is_no_label(label: Any, tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    rows = [{"text": f"t{i}", "label": "ab"[i % 2]} for i in range(8)]
    rows.insert(3, {"text": "t", "label": label})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for fields in ({}, {"labels": ["a", "b"]}):
        with pytest.raises(DataError, match="row 4:"):
            read(path, **fields)
    assert read(path, skip_bad=1).record["skipped"]["train"][0]["row"] == 4


def test_plain_texts_are_rows_of_a_text_file(tmp_path: Path) -> None:
    path = tmp_path / "d.txt"
    path.write_bytes("eins\n\nzwei, süß\ndrei\n".encode("cp1252"))
    config = generation.Config(files={"train": path}, template="text")
    data = generation.read(config, Paths(), 0)
    found = {row["index"]: row["fields"]["text"] for rows in data.splits.values() for row in rows}
    assert found == {0: "eins", 2: "zwei, süß", 3: "drei"}
    assert said(data, "read_as")[0]["found"] == {"encoding": "cp1252"}
    assert generation.check(config) == []


def test_a_text_file_beside_a_table_is_not_taken_for_the_split(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,label\na,x\nb,y\n")
    (tmp_path / "train.txt").write_text("where these rows are from\n")
    data = classification.read(classification.Config(data_dir=tmp_path), Paths(), 0)
    assert data.record["source"] == {"train": str(tmp_path / "train.csv")}


@pytest.mark.parametrize("name", ["d.xlsx", "d.xls", "d.ods", "d.csv"])
def test_a_workbook_is_refused_with_what_to_do(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"PK\x03\x04 and more")
    with pytest.raises(DataError, match="CSV UTF-8"):
        read(tmp_path / name)


def test_a_packed_file_by_another_name_is_refused_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_bytes(gzip.compress(b"text,label\na,x\n"))
    with pytest.raises(DataError, match=r"d\.csv\.gz"):
        read(tmp_path / "d.csv")


def test_an_integer_of_thousands_of_digits_is_a_bad_row_or_file(tmp_path: Path) -> None:
    content = '{"text": "x", "label": ' + "9" * 5000 + "}"
    (tmp_path / "d.jsonl").write_text(content)
    with pytest.raises(DataError, match="row 1:"):
        read(tmp_path / "d.jsonl")
    (tmp_path / "d.json").write_text(f"[{content}]")
    with pytest.raises(DataError, match="not JSON"):
        read(tmp_path / "d.json")


# Fields within a column that holds several.


def nest(path: Path) -> Path:
    rows = [
        {
            "data": {"q": f"q{i}", "in": {"a": "xy"[i % 2]}},
            "o": {"c": ["k", "l"], "n": i % 2},
            "a.b": i,
        }
        for i in range(20)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_fields_within_a_column_are_named_with_dots(tmp_path: Path) -> None:
    path = nest(tmp_path / "d.jsonl")
    named = {"text": "data.q", "label": "data.in.a"}
    config = classification.Config(files={"train": path}, columns=named)
    assert classification.check(config) == []
    found = in_file_order(classification.read(config, Paths(), 0))
    assert found == [(f"q{i}", "xy"[i % 2]) for i in range(20)]
    assert classification.read_inputs(config, path)[3]["text"] == "q3"
    config = generation.Config(files={"train": path}, prompt="{data.q}:", completion="{a.b}")
    data = generation.read(config, Paths(), 0)
    fields = {row["index"]: row["fields"] for rows in data.splits.values() for row in rows}
    assert fields[7] == {"data.q": "q7", "a.b": "7"}
    assert generation.read_inputs(config, path)[7]["fields"]["data.q"] == "q7"
    asked = {"question": "{data.in.a}? {data.q}", "choices": ["o.c"], "label": "o.n"}
    quiz = multiple_choice.Config(files={"train": path}, columns=asked, labels=["0", "1"])
    [row] = multiple_choice.read_inputs(quiz, [json.loads(path.read_text().splitlines()[1])])
    assert (row["question"], row["choices"]) == ("y? q1", ("k", "l"))
    split = multiple_choice.read(quiz, Paths(), 0).splits["train"]
    assert {row["label"] for row in split} == {0, 1}


@pytest.mark.parametrize(
    ("column", "meant"), [("q", "data.q"), ("data", "data.in.a"), ("a", "in.a")]
)
def test_a_column_that_is_meant_within_another_is_named(
    column: str, meant: str, tmp_path: Path
) -> None:
    fields: dict[str, Any] = {"columns": {"text": column, "label": "data.in.a"}}
    with pytest.raises(DataError) as caught:
        read(nest(tmp_path / "d.jsonl"), **fields)
    assert meant in caught.value.problems[0].said


# Image folders and pictures.

PIXELS = np.linspace(0, 255, 64).astype(np.uint8).reshape(8, 8)


def folder(path: Path) -> Path:
    for name, pixels in (("dark", PIXELS // 2), ("light", PIXELS)):
        (path / name).mkdir(parents=True)
        for i in range(4):
            Image.fromarray(np.roll(pixels, i)).save(path / name / f"{i}.png")
    return path


@pytest.mark.parametrize(
    "name",
    [
        *(".ipynb_checkpoints/0.png", "__MACOSX/._0.png", "@eaDir/0.png", ".git/config"),
        *("$RECYCLE.BIN/0.png", "dark/Thumbs.db", "dark/desktop.ini", "dark/.DS_Store"),
        *("light/._0.png", "light/.ipynb_checkpoints/0.png", "dark/Icon\r", "dark/~$notes.docx"),
    ],
)
def test_what_systems_leave_behind_is_no_class_and_no_picture(name: str, tmp_path: Path) -> None:
    root = folder(tmp_path / "d")
    plain = images.read(images.Config(files={"train": root}), Paths(), 0)
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).write_bytes((root / "dark" / "0.png").read_bytes())
    data = images.read(images.Config(files={"train": root}), Paths(), 0)
    assert data.problem.labels == ("dark", "light")
    assert sum(map(len, data.splits.values())) == sum(map(len, plain.splits.values())) == 8
    assert said(data, "system_files") == [{"folder": str(root), "count": 1}]


def saved(pixels: np.ndarray, kind: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("pixels", "kind"),
    [
        (PIXELS.astype(np.int32), "TIFF"),
        (PIXELS.astype(np.int32) * 257, "TIFF"),
        (PIXELS.astype(np.int32) * 2**23, "TIFF"),
        (PIXELS.astype(np.uint16) * 257, "PNG"),
        (PIXELS.astype(np.uint16) * 257, "TIFF"),
        ((PIXELS / 255).astype(np.float32), "TIFF"),
        (PIXELS.astype(np.float32), "TIFF"),
    ],
)
def test_the_same_picture_in_more_bits_is_the_same_picture(pixels: np.ndarray, kind: str) -> None:
    found = np.asarray(pictures.decode(saved(pixels, kind)))
    expected = np.asarray(Image.fromarray(PIXELS).convert("RGB"))
    if pixels.max() > 2**30:  # 8 bits of the 31 that are not negative
        expected = expected // 2
    assert np.abs(found.astype(int) - expected).max() == 0
    if kind == "TIFF" and pixels.max() <= 2**30:
        array = pictures.find(pixels, Path())
        assert np.array_equal(np.asarray(pictures.decode(array)), expected)


def test_a_dark_picture_of_16_bits_stays_dark() -> None:
    assert np.asarray(pictures.decode(saved(PIXELS.astype(np.uint16), "PNG"))).max() == 0


@pytest.mark.parametrize("value", [-1.0, np.nan, 300.0, np.inf])
def test_floats_of_another_range_are_refused(value: float) -> None:
    pixels = (PIXELS / 255).astype(np.float32)
    pixels[0, 0] = value
    with pytest.raises(Unusable, match="floating-point pixels"):
        pictures.check(saved(pixels, "TIFF"))


def test_faults_of_decoding_are_counted_with_the_rows(tmp_path: Path) -> None:
    root = folder(tmp_path / "d")
    whole = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    Image.fromarray(noise).save(whole, "JPEG")
    (root / "dark" / "cut.jpg").write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
    (root / "light" / "notes.docx").write_bytes(b"PK")
    with pytest.raises(DataError, match="2 files") as caught:
        images.read(images.Config(files={"train": root}), Paths(), 0)
    named = [line.strip().partition(": ")[0] for line in caught.value.problems[0].said.splitlines()]
    assert named[1:] == [str(root / "dark" / "cut.jpg"), str(root / "light" / "notes.docx")]
    (root / "light" / "notes.docx").unlink()
    data = images.read(images.Config(files={"train": root}, skip_bad=1), Paths(), 0)
    assert [bad["row"] for bad in data.record["skipped"]["train"]] == [5]


def test_pictures_that_stand_twice_are_named_by_their_files(tmp_path: Path) -> None:
    train, test = folder(tmp_path / "train"), tmp_path / "test" / "light"
    test.mkdir(parents=True)
    again, shared = train / "dark" / "again.png", train / "light" / "0.png"
    again.write_bytes((train / "dark" / "0.png").read_bytes())
    (test / "t.png").write_bytes(shared.read_bytes())
    found = images.read(images.Config(data_dir=tmp_path), Paths(), 0)
    named = [[*note["rows"]] for kind in ("inputs_repeated", "rows_in_two_splits")
             for note in said(found, kind)]  # fmt: skip
    assert named == [[str(again)], [str(shared)]]
    with pytest.raises(DataError, match=f"{re.escape(str(shared))} = "):
        images.read(images.Config(data_dir=tmp_path, overlap="refuse"), Paths(), 0)


def test_the_first_frame_of_an_animated_picture_and_cmyk_are_read() -> None:
    stream = io.BytesIO()
    frames = [Image.fromarray(PIXELS), Image.fromarray(255 - PIXELS)]
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:])
    assert np.array_equal(np.asarray(pictures.decode(stream.getvalue()))[..., 0], PIXELS)
    stream = io.BytesIO()
    Image.fromarray(PIXELS).convert("RGB").convert("CMYK").save(stream, "TIFF")
    assert np.array_equal(np.asarray(pictures.decode(stream.getvalue()))[..., 0], PIXELS)


def test_system_files_by_their_names() -> None:
    assert readers.is_system(Path("a/Thumbs.db"))
    assert not readers.is_system(Path("../a/thumb.png"))
