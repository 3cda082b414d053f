"""Whether a model brings a chat template, told from the files of its tokenizer without loading it."""

import json
from pathlib import Path

from graftlab.errors import ModelError


def is_brought_by(model: str) -> bool | None:
    """Return whether the tokenizer in a model's folder has a chat template; None where it is no folder.

    Raises:
        ModelError: its tokenizer_config.json cannot be read.
    """
    folder = Path(model)
    if not (folder / "config.json").is_file():
        return None
    if (folder / "chat_template.jinja").is_file() or (
        folder / "additional_chat_templates"
    ).is_dir():
        return True
    path = folder / "tokenizer_config.json"
    if not path.is_file():
        return False
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    return isinstance(found, dict) and bool(found.get("chat_template"))
