"""Rows of a generation task: read, checked, split."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from graftlab.config import Paths
from graftlab.contracts import Data, Problem, Row, written
from graftlab.data import inputs, nested, readers, sources
from graftlab.data.labels import Unusable
from graftlab.data.load import examined
from graftlab.data.rows import Numbered, Rows
from graftlab.tasks._texts import same_text
from graftlab.tasks.generation import turns
from graftlab.tasks.generation.examples import is_answered
from graftlab.tasks.generation.fields import Config
from graftlab.tasks.generation.templates import around, columns_of, fill, text_in, without


def asked(config: Config) -> list[str]:
    """Return the columns that a row must have to be answered."""
    if config.template == "chat":
        return [config.columns.messages]
    if config.template == "text":
        return []
    form = config.filled
    return [name for name in columns_of(form.prompt) if name != form.optional]


def answered(config: Config) -> list[str]:
    """Return the columns that the answer needs."""
    return [] if config.template == "chat" else list(columns_of(config.filled.completion))


def references(config: Config) -> list[str]:
    """Return the columns that answers are scored by."""
    reference = config.columns.reference
    return [] if reference is None else [reference] if isinstance(reference, str) else [*reference]


def needed(config: Config) -> list[str]:
    """Return all the columns that a train row must have."""
    return list(dict.fromkeys([*asked(config), *answered(config), *references(config)]))


class Reader:
    """Turns a row of the source into `fields` (texts by column) or `messages`, `label` and `key`."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def __call__(self, row: Mapping[str, object]) -> dict[str, object]:
        """Return the row with its answer and reference where it has them. `Raises:` Unusable."""
        row = nested.reached(row, needed(self.config))
        inputs = self._chat(row) if self.config.template == "chat" else self._filled(row)
        if names := references(self.config):
            inputs["label"] = self._reference(row, names)
        return inputs

    def _chat(self, row: Mapping[str, Any]) -> dict[str, Any]:
        columns = self.config.columns
        name, tools = columns.messages, columns.tools or "tools"
        messages = turns.messages_of(row[name], name)
        offered = turns.tools_of(row.get(tools), tools)
        said = [m["content"] for m in messages if m["role"] not in ("assistant", "system")]
        last = messages[-1]
        label = None
        if last["role"] == "assistant":
            calls = last.get("tool_calls")
            wrote = json.dumps(calls, ensure_ascii=False) if calls else ""
            label = last["content"] or wrote
        inputs = {"messages": messages, "label": label, "key": same_text(said)}
        return inputs if offered is None else {**inputs, "tools": offered}

    def _filled(self, row: Mapping[str, object]) -> dict[str, object]:
        form, config = self.config.filled, self.config
        names = [*asked(config), *(name for name in answered(config) if name in row)]
        fields = {name: text_in(row, name, config.no_answer) for name in names}
        if form.optional and row.get(form.optional):
            fields[form.optional] = text_in(row, form.optional, config.no_answer)
        label = None
        if all(name in fields for name in answered(config)):
            label = without(fill(form.completion, fields), around(form.completion))
        shown = columns_of(form.prompt) or answered(config)
        return {
            "fields": fields,
            "label": label,
            "key": same_text([fields.get(name, "") for name in shown]),
        }

    def _reference(self, row: Mapping[str, object], names: Sequence[str]) -> object:
        if any(row.get(name) is None for name in names):
            return None
        values = {name: row[name] for name in names}
        return values[names[0]] if isinstance(self.config.columns.reference, str) else values


def read(config: Config, paths: Paths) -> Data:
    """Return the task's rows: `index`, `fields` or `messages`, and `label`, what an answer is scored by.

    Raises:
        ConfigError, DataError, Refused
    """
    wanted = needed(config)
    opened = sources.open_splits(config, paths, (wanted[0], wanted[-1]))
    parse = Reader(config)
    gathered = {
        split: sources.gather(
            source, wanted if split == "train" else asked(config), wanted[0], parse
        )
        for split, source in opened.items()
    }
    rows, skipped = sources.usable(gathered, config.skip_bad)
    hidden = {s for s, r in rows.items() if s != "train" and not any(_known(r))}
    # `prepare` stratifies by class where it carves a validation split: here all rows are of one
    one_class = {
        split: Rows({**_renamed(found.columns), "label": [0] * len(found)})
        for split, found in rows.items()
    }
    used, record, keys = examined(one_class, hidden, config)
    return Data(
        {split: Rows(_named_back(found.columns)) for split, found in used.items()},
        Problem("tokens"),
        {
            "source": {split: source.where for split, source in opened.items()},
            "revision": config.hub.revision if config.hub else None,
            "skipped": skipped,
            **record,
            "notes": [*written(sources.said(opened)), *record["notes"]],
        },
        keys,
    )


def _known(rows: Rows) -> Iterable[bool]:
    return map(is_answered, rows)


def _renamed(columns: Mapping[str, list[object]]) -> dict[str, list[object]]:
    return {("reference" if name == "label" else name): v for name, v in columns.items()}


def _named_back(columns: Mapping[str, list[object]]) -> dict[str, list[object]]:
    kept = {name: values for name, values in columns.items() if name != "label"}
    return {("label" if name == "reference" else name): v for name, v in kept.items()}


def read_inputs(config: Config, source: str | Path | Sequence[object]) -> list[Row]:
    """Return new inputs as rows without labels: from a file (.txt holds a text a line, others the task's
    columns), from one text, or from a list of texts or dicts.

    A text is the prompt's one column, or what a user says (in a chat). A list of turns is a chat.

    Raises:
        DataError: a row cannot be used, or a column is missing.
    """
    where, numbered = _inputs(config, source)
    reader = Reader(config)

    def parse(row: Mapping[str, object]) -> dict[str, object]:
        return _unanswered(
            reader({name: row[name] for name in row if name not in references(config)})
        )

    return inputs.read(where, numbered, parse, asked(config))


def _unanswered(inputs: dict[str, Any]) -> dict[str, object]:
    """Return the inputs without an answer of the assistant that ends the conversation."""
    messages = inputs.get("messages")
    if messages and messages[-1]["role"] == "assistant":
        if len(messages) == 1:
            raise Unusable("the conversation has nothing to answer")
        return {**inputs, "messages": messages[:-1]}
    return inputs


def _inputs(config: Config, source: str | Path | Sequence[Any]) -> tuple[str, Iterable[Numbered]]:
    if isinstance(source, Path):
        if source.suffix.lower() != ".txt":
            return str(source), readers.read(source)
        lines = readers.read_text(source, "line")
        return str(source), (
            (i, row if isinstance(row, str) else _as_row(config, row["line"])) for i, row in lines
        )
    items = [source] if isinstance(source, str) else source
    return "input", ((index, _as_row(config, item)) for index, item in enumerate(items))


def _as_row(config: Config, item: object) -> dict[str, object] | str:
    """Return an item as a row, or why it is none."""
    columns = asked(config) or ([config.columns.text] if config.template == "text" else [])
    if isinstance(item, Mapping):
        return dict(item)
    if isinstance(item, list | tuple) and config.template == "chat":
        return {columns[0]: item}
    if not isinstance(item, str):
        return f"{item!r:.60} is no text and no object with the columns {', '.join(columns)}"
    if item.lstrip().startswith("{") and (found := _object(item, columns)) is not None:
        return found
    if config.template == "chat":
        return {columns[0]: [{"role": "user", "content": item}]}
    if len(columns) == 1:
        return {columns[0]: item}
    wanted = ", ".join(f'"{name}": "..."' for name in columns)
    return f"the prompt has {len(columns)} columns; give a JSON object: {{{wanted}}}"


def _object(text: str, columns: Sequence[str]) -> dict[str, object] | None:
    """Return a JSON object that has one of the columns; None where the text is none (it may be code)."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return dict(found) if isinstance(found, dict) and set(found) & set(columns) else None
