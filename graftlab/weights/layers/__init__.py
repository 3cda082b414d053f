"""One layer of a large decoder, read from its checkpoint without the rest.

config.json and the weights' index come first, then only the byte ranges of one layer's tensors, from a
folder or from the hub by HTTP range requests. Modules: `source` (bytes of a folder, counted), `remote`
(bytes of the hub, and layers kept on disk), `tensors` (which bytes are which tensor), `anatomy`
(transformers' own classes, cut down to one layer), `layer` (the layer as a module), `checkpoint` (all
of it together).
"""

from graftlab.weights.layers.checkpoint import Checkpoint
from graftlab.weights.layers.discovery import load_layer, open

__all__ = ["Checkpoint", "load_layer", "open"]
