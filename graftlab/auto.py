"""`import graftlab.auto` teaches stock PEFT the methods that are this project's own.

    import graftlab.auto
    from peft import PeftModel
    model = PeftModel.from_pretrained(base, "runs/mine/adapter")

A method that PEFT lacks is a package with a module `tuner`, which registers itself when it is imported.
"""

import importlib
import importlib.util

from graftlab import registry

for _name in registry.names("methods"):
    _module = registry.find("methods", _name)
    if hasattr(_module, "__path__") and importlib.util.find_spec(f"{_module.__name__}.tuner"):
        importlib.import_module(f"{_module.__name__}.tuner")
