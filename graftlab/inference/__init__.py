"""An adapted model in use: predictions, a conversation, and lm-eval's questions."""

from graftlab.inference.adapted import Adapted, load
from graftlab.inference.inputs import check, check_split

__all__ = ["Adapted", "check", "check_split", "load"]
