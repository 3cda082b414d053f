"""`import graftlab.auto` teaches stock PEFT and transformers the methods that are this project's own.

    import graftlab.auto
    from peft import PeftModel
    model = PeftModel.from_pretrained(base, "runs/mine/adapter")

A method whose adapters neither library knows names the module that registers them: `REGISTERS`.
"""

import importlib

from graftlab import registry

for _name in registry.names("methods"):
    if (_module := registry.find("methods", _name).REGISTERS) is not None:
        importlib.import_module(_module)
