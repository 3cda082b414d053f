"""PEFT adapters: attach, save, load and turn off, alike for every method that uses PEFT.

A saved adapter stands for a change of the untouched backbone: `adapter_config.json` with sorted lists
and `adapter_model.safetensors`, the same bytes for the same weights. Pickled adapters are refused.
"""

import logging

from graftlab.adapters import deferral  # noqa: F401  # before anything imports peft
from graftlab.adapters.attachment import (
    ADAPTER,
    PREFIX,
    attach,
    common_fields,
    drawing,
    make_config,
    merge,
    off,
    random_frozen,
    resolve,
    task_type,
)
from graftlab.adapters.fields import LinearAdapter, LowRank, OnLinear, PeftFields, whole
from graftlab.adapters.files import (
    begin_from,
    check_start,
    config_dict,
    find_start,
    load,
    put,
    save,
    tensors,
)
from graftlab.adapters.registration import register

# peft imports bitsandbytes, which says of a kernel for 4-bit weights on CPUs that it is not there.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

__all__ = [
    "ADAPTER",
    "PREFIX",
    "LinearAdapter",
    "LowRank",
    "OnLinear",
    "PeftFields",
    "attach",
    "begin_from",
    "check_start",
    "common_fields",
    "config_dict",
    "drawing",
    "find_start",
    "load",
    "make_config",
    "merge",
    "off",
    "put",
    "random_frozen",
    "register",
    "resolve",
    "save",
    "task_type",
    "tensors",
    "whole",
]
