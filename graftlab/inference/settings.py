"""Other settings for writing than a run's own: fields of its section `task.generation`."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from graftlab.errors import Argument, ConfigError, Fault, Place
from graftlab.runfile import RunFile

# The fields of a task that writes under which an input is the whole prompt.
RAW: dict[str, object] = {
    "template": None, "prompt": "{prompt}", "completion": "", "chat_template": False,
    "chat_template_file": None, "system": None, "cut": (),
}  # fmt: skip


def settings(file: RunFile, raw: bool, changed: Mapping[str, object]) -> Any:
    """Return the task's section with other settings for writing (fields of `task.generation`).

    Raises:
        ConfigError: the task writes no texts, or a value is not allowed.
    """
    section, changed = file.task.config, dict(changed)
    if not (raw or changed):
        return section
    if not hasattr(section, "generation"):
        given = ", ".join([*changed, *["raw"] * raw])
        raise ConfigError(
            f"{given}: for runs of the kind generation, whose model writes texts; this run's kind is "
            f"{file.task.name}."
        )
    if raw and not hasattr(section, "template"):
        said = f"raw: the prompts of a task of kind {file.task.name} are its own. Leave it out."
        raise ConfigError(said, place=Place(argument=Argument("raw")), kind="conflict")
    if changed.get("temperature") == 0:  # what is only for drawing goes with it
        changed = {"top_p": 1.0, "top_k": 0, "samples": 1} | changed
    try:
        written = type(section.generation).model_validate(
            {**section.generation.model_dump(), **changed}
        )
    except ValidationError as error:
        raise ConfigError([_fault(detail) for detail in error.errors()]) from None
    plain = {**RAW, "columns": type(section.columns)()} if raw else {}
    return section.model_copy(update={"generation": written, **plain})


def _fault(detail: Mapping[str, Any]) -> Fault:
    """Return one of pydantic's problems with the settings for writing."""
    key = tuple(detail["loc"])
    raised = detail.get("ctx", {}).get("error")
    said = str(raised) if isinstance(raised, ValueError) else detail["msg"]
    where = ".".join(map(str, ("generation", *key)))
    place = Place(argument=Argument(str(key[0]))) if key else Place(key=("generation",))
    return Fault(f"{where}: {said}.", kind="not_allowed", place=place, given=detail["input"])
