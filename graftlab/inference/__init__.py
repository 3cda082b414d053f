"""An adapted model in use: predictions, a conversation, and lm-eval's questions."""

from graftlab.inference.adapted import Adapted, load
from graftlab.inference.settings import check

__all__ = ["Adapted", "check", "load"]
