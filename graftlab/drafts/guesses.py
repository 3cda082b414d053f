"""What was guessed of data, in a few lines: each with what it is about."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from graftlab.contracts.words import FIELDS
from graftlab.data import readers
from graftlab.drafts.columns import SEEN, Seen
from graftlab.drafts.draft import CLASSES, GENERATION, IMAGES
from graftlab.tasks.generation import templates

WRITTEN = {  # of a task that generates text, by its template
    "chat": "conversations in {messages}; what the assistant says is learnt",
    "text": "plain texts in {text}; all of them is learnt",
}
USUAL = {"text": "text", "label": "label", "image": "image", "messages": "messages"}


def of(file: Path, seen: Seen, task: Mapping[str, Any]) -> dict[str, str]:
    """Return how the file is read, and what its columns are taken for. `task` has its splits' shares too."""
    said, used = _task(task, file.is_dir())
    found = {"read": _read(file, seen), "task": said}
    if isinstance(task.get("labels"), Mapping):
        found["labels"] = "those that differ by case or blanks alone are one class"
    beside = [name for name in seen.columns if name not in used]
    if beside and not file.is_dir():
        found["not used"] = ", ".join(beside)
    shares = {"test": task.get("test_share"), "validation": task.get("validation_share", 0.1)}
    if shares["test"]:
        said = ", ".join(f"{share:.0%} for {split}" for split, share in shares.items())
        found["splits"] = f"held back of the rows: {said}"
    elif "data_dir" in task:
        found["splits"] = f"those that stand in {task['data_dir']}"
    return found


def _read(file: Path, seen: Seen) -> str:
    if file.is_dir():
        return f"{len(seen.rows)} images" + (f", {seen.bad} other files" if seen.bad else "")
    more = " or more" if len(seen.rows) + seen.bad >= SEEN else ""
    said, suffix = [f"{len(seen.rows)} rows{more}"], readers.suffix_of(file)
    layout = readers.look(file)
    if suffix in readers.TABLES:
        mark = FIELDS.get(layout.delimiter, f'"{layout.delimiter}"')
        said.append(f"fields parted by {mark} (task.delimiter)")
    if suffix != ".parquet":
        said.append(f"encoding {layout.encoding} (task.encoding)")
    if seen.bad:
        said.append(f"{seen.bad} more that cannot be read")
    said += [str(note) for note in readers.notes(file, layout) if note.kind != "read_as"]
    return ", ".join(said)


def _task(task: Mapping[str, Any], folder: bool) -> tuple[str, Sequence[str]]:
    """Return what is learnt of which columns, and their names."""
    given = task.get("columns", {})
    if task["kind"] == IMAGES:
        own = {name: given.get(name, name) for name in ("image", "label")}
        shown = (
            "each folder is a class" if folder else "pictures in {image}, their class in {label}"
        )
        return f"images: {shown}".format(**own), [*own.values()]
    if task["kind"] == CLASSES:
        own = {"text": "text", "label": "label", **given}
        texts = " and ".join(own[name] for name in ("text", "pair") if name in own)
        what = "a score" if task.get("regression") else "its class"
        return f"classification: the text is {texts}, {what} {own['label']}", [*own.values()]
    if task["kind"] != GENERATION:
        choices = ", ".join(given["choices"])
        said = f"the question is {given['question']}, choices {choices}, the right one {given['label']}"
        return f"multiple choice: {said}", [given["question"], *given["choices"], given["label"]]
    own = {**USUAL, **given}
    if (template := task.get("template")) in WRITTEN:
        column = own["messages" if template == "chat" else "text"]
        return f"generation: {WRITTEN[template].format(**own)}", [column]
    form = templates.NAMED.get(str(template))
    prompt, completion = form[:2] if form else ("", "")
    prompt, completion = task.get("prompt", prompt), task.get("completion", completion)
    asked, answered = (templates.columns_of(text) for text in (prompt, completion))
    said = f"generation: {', '.join(asked)} is given, {', '.join(answered)} learnt"
    return said + (f" (template {template})" if template else ""), [*asked, *answered]
