"""Tasks that go through a chat template, on models whose tokenizers have none."""

from typing import Any

from graftlab.config import Document, Problems
from graftlab.config.parser import Location
from graftlab.contracts import BackboneKind, TaskKind
from graftlab.runfile.records import Part
from graftlab.weights import chat_template


def check(
    task: Part[TaskKind], backbone: Part[BackboneKind], document: Document, problems: Problems
) -> None:
    """Refuse chats on a model whose tokenizer lies here and has no chat template."""
    model = getattr(backbone.config, "model", None)
    tasks: dict[Location, Any] = {("task",): task.config}
    for number, part in enumerate(task.parts.values()):
        tasks["task", "tasks", number] = part.config
    for where, config in tasks.items():
        asked = getattr(config, "chats", False) and not getattr(config, "chat_template_file", None)
        if asked and isinstance(model, str) and chat_template.is_brought_by(model) is False:
            section = ".".join(map(str, where))
            key, instead = _key(config, section)
            problems.say(
                document.place(*where, key),
                f"{section}.{key}: the tokenizer of {model} has no chat template. {instead}",
                kind="no_template",
            )


def _key(config: Any, section: str) -> tuple[str, str]:
    """Return the key by which a task's section asks for a chat template, and what to do without one."""
    if not hasattr(config, "chat_template_file"):
        return (
            "prompt_format",
            f"Take an instruction-tuned backbone, or {section}.prompt_format: plain.",
        )
    return "chat_template" if config.chat_template else "template", (
        f"Give one as {section}.chat_template_file, take an instruction-tuned backbone, or use "
        f"{section}.prompt and {section}.completion."
    )
