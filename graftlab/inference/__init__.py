"""An adapted model in use: predictions, a conversation, and lm-eval's questions."""

from graftlab.inference.adapted import Adapted, check, load

__all__ = ["Adapted", "check", "load"]
