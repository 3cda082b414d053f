"""Conversations as data have them: turns of `messages` or of ShareGPT, content in parts, calls of tools."""

import json
from collections.abc import Mapping
from typing import Any

from graftlab.data.labels import Unusable
from graftlab.tasks._texts import text_of

Message = dict[str, Any]
"""`role` and `content`; where it has them `tool_calls`, `tool_call_id` and `name`; `trained: False` where an
answer is not trained."""

ROLES = {  # of ShareGPT's files and of older calls of functions, beside those of chat templates
    "human": "user",
    "prompter": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
    "function": "tool",
    "observation": "tool",
    "function_response": "tool",
}
CALLS = ("function_call", "tool_call")
"""What LLaMA-Factory's files call a turn that is a call alone, as JSON."""
KNOWN = ("system", "user", "assistant", "tool", "developer")
KEPT = ("tool_call_id", "name")
"""What else of a turn a chat template may read."""


def messages_of(value: Any, column: str) -> list[Message]:
    """Return the turns of a conversation in either layout. `Raises:` Unusable."""
    if not isinstance(value, list | tuple) or not value:
        raise Unusable(f"column {column!r} is {value!r:.60}, not a list of turns")
    return [_message(turn, f"{column}[{place}]") for place, turn in enumerate(value)]


def _message(turn: Any, where: str) -> Message:
    if not isinstance(turn, Mapping):
        raise Unusable(f"{where} is {turn!r:.60}, not a turn with role and content")
    other = "from" in turn or ("value" in turn and not {"role", "content"} & turn.keys())
    name, said = ("from", "value") if other else ("role", "content")
    calls = _calls(turn, where)
    if missing := [key for key in (name, said) if key not in turn and not (calls and key == said)]:
        raise Unusable(f"{where} has no {missing[0]!r}; it has {', '.join(map(str, turn))}")
    given = str(turn[name])
    if given.lower() in CALLS:
        return _message({"role": "assistant", "tool_calls": [_spelled(turn[said], where)]}, where)
    role = ROLES.get(given.lower(), given.lower())
    if role not in KNOWN:
        known = ", ".join((*KNOWN, *ROLES))
        raise Unusable(f"{where}: the role {given!r} is none of {known}")
    message: Message = {"role": role, "content": _content(turn.get(said), bool(calls), where)}
    if calls:
        message["tool_calls"] = calls
    message |= {key: turn[key] for key in KEPT if role == "tool" and turn.get(key) is not None}
    if role == "assistant" and not _is_trained(turn, where):
        message["trained"] = False
    return message


def _content(content: Any, calls: bool, where: str) -> str:
    """Return a turn's text: the parts of text joined, nothing where it has calls alone."""
    if content is None and calls:
        return ""
    if not isinstance(content, list | tuple):
        return text_of({where: content}, where)
    texts = []
    for part in content:
        kind = part.get("type", "text") if isinstance(part, Mapping) else "text"
        text = part.get("text") if isinstance(part, Mapping) else part
        if kind != "text" or not isinstance(text, str):
            raise Unusable(
                f"{where} has a part that is no text ({kind}); only texts are trained on"
            )
        texts.append(text_of({where: text}, where))
    return "".join(texts)


def _calls(turn: Mapping[str, Any], where: str) -> list[Any]:
    """Return the calls of tools of a turn, with arguments as templates want them: mappings."""
    calls = turn.get("tool_calls")
    if not calls and turn.get("function_call"):
        calls = [{"type": "function", "function": turn["function_call"]}]
    if not calls:
        return []
    if not isinstance(calls, list | tuple) or not all(isinstance(call, Mapping) for call in calls):
        raise Unusable(f"{where}: tool_calls is {calls!r:.60}, not a list of calls")
    return [_call(call) for call in calls]


def _spelled(value: Any, where: str) -> dict[str, Any]:
    """Return the call that a turn's text is. `Raises:` Unusable."""
    call = _parsed(value) if isinstance(value, str) else value
    if not isinstance(call, Mapping) or "name" not in call:
        raise Unusable(f"{where} is {value!r:.60}, not a call with name and arguments")
    return {"type": "function", "function": dict(call)}


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    called = call.get("function")
    if isinstance(called, Mapping) and isinstance(called.get("arguments"), str):
        return {**call, "function": {**called, "arguments": _parsed(called["arguments"])}}
    return dict(call)


def _parsed(text: str) -> Any:
    """Return what a JSON text holds; the text where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _is_trained(turn: Mapping[str, Any], where: str) -> bool:
    weight, train = turn.get("weight"), turn.get("train")
    if weight not in (None, 0, 1):
        raise Unusable(f"{where}: the weight {weight!r} is neither 0 nor 1")
    if train not in (None, True, False):
        raise Unusable(f"{where}: train is {train!r}, neither true nor false")
    return weight != 0 and train is not False


def tools_of(value: Any, column: str) -> list[Any] | None:
    """Return the tools of a conversation, from a list or its JSON; None where there are none.

    Raises:
        Unusable: it is something else.
    """
    found = _parsed(value) if isinstance(value, str) and value else value
    if not found:
        return None
    if not isinstance(found, list | tuple) or not all(isinstance(tool, Mapping) for tool in found):
        raise Unusable(f"column {column!r} is {value!r:.60}, not a list of tools")
    return [dict(tool) for tool in found]
