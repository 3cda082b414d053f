"""An adapted model in use: predictions, a conversation, and lm-eval's questions."""

from graftlab.inference.adapted import Adapted, load, settings

__all__ = ["Adapted", "load", "settings"]
