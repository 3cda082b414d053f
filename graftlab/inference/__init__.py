"""An adapted model in use: predictions, a conversation, and lm-eval's questions."""

from graftlab.inference.adapted import Adapted, load
from graftlab.inference.inputs import Inputs, check, check_split
from graftlab.inference.vectors import Reading

__all__ = ["Adapted", "Inputs", "Reading", "check", "check_split", "load"]
