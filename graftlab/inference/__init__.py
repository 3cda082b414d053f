"""An adapted model in use: predictions, a conversation, and lm-eval's questions."""

from graftlab.inference.adapted import Adapted, adapter_of, find, load, settings

__all__ = ["Adapted", "adapter_of", "find", "load", "settings"]
