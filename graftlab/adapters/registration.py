"""Make a method of ours one of PEFT's own, so that stock PEFT saves, loads and turns it off."""

from typing import Any


def register(name: str, config_class: object, model_class: object) -> None:
    """Register a tuner in PEFT under `name` (lower case); its parameters' names begin with `<name>_`.

    Does nothing for one that is registered already.

    Raises:
        ValueError: another package has taken the name.
    """
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
    from peft.utils.peft_types import PeftType, register_peft_method

    member = name.upper()
    if member not in PeftType.__members__:
        _extend(PeftType, member)
    taken = PEFT_TYPE_TO_CONFIG_MAPPING.get(PeftType[member])
    if taken is config_class:
        return
    if taken is not None:
        raise ValueError(f"peft has a method {name!r} already: {taken.__module__}")
    register_peft_method(
        name=name, config_cls=config_class, model_cls=model_class, prefix=f"{name}_"
    )


def _extend(enum: Any, member: str) -> None:
    """Add a member to a closed `str` enum.

    PEFT has no entry point for methods from outside, and plain strings in its mappings break
    `get_model_status` and transformers' `load_adapter`. The private surface of `enum` is touched here only.
    """
    value = str.__new__(enum, member)
    value._name_ = value._value_ = member
    value.__objclass__ = enum
    value._sort_order_ = len(enum.__members__)
    enum._member_names_.append(member)
    enum._member_map_[member] = value
    enum._value2member_map_[member] = value
    type.__setattr__(enum, member, value)
