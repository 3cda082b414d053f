"""Which layer of a large model to plug in: every layer scored on training examples, one in memory at a time.

`graftlab.runs.chosen_layer` puts this to use for a run file; what stands here knows neither runs nor methods.
"""

from graftlab.selection.request import Config

__all__ = ["Config"]
