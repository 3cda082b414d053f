"""What a file is that a run file is to be drafted from."""

from collections.abc import Callable, Mapping
from pathlib import Path

from graftlab.config import foreign
from graftlab.config.parser import parse_file
from graftlab.drafts import axolotl, llama_factory, peft, rows, trainer
from graftlab.drafts.draft import Draft
from graftlab.errors import ConfigError, Place

ADAPTER = "adapter_config.json"
SETTINGS = (".yaml", ".yml", ".json")
PROGRAMS: dict[str, Callable[[Mapping[str, object], Path], Draft]] = {
    "axolotl": axolotl.draft,
    "LLaMA-Factory": llama_factory.draft,
    "PEFT adapter_config.json": peft.draft,
    "TrainingArguments": trainer.draft,
}


def read(path: Path) -> Draft:
    """Return what a file or folder says of a run: data, or settings of another program.

    Raises:
        ConfigError: it is neither, or a run file already.
        DataError: its rows cannot be read, or are for no task that there is.
    """
    if path.is_dir() and (path / ADAPTER).is_file():
        path = path / ADAPTER
    if path.suffix.lower() not in SETTINGS or _is_rows(path):
        return rows.draft(path)
    values = parse_file(path).values
    if (program := foreign.program_of(values)) is not None:
        return PROGRAMS[program](values, path)
    what = "a run file already" if foreign.SECTIONS & values.keys() else "no file that is known"
    known = ", ".join(PROGRAMS)
    raise ConfigError(
        f"this is {what}. A run file is drafted from data (CSV, JSONL, Parquet, a folder of images, chats), "
        f"and from the files of other programs: {known}.",
        place=Place(str(path)),
        kind="foreign",
    )


def _is_rows(path: Path) -> bool:
    """Return whether a file of JSON is a list of rows."""
    if path.suffix.lower() != ".json" or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(256).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")
