"""Every metric, score, task kind and kind of backbone keeps the promises of `graftlab.testing`."""

import pytest

from graftlab.runfile import measures
from graftlab.testing import metrics, scores
from graftlab.testing.backbones import *  # noqa: F403
from graftlab.testing.metrics import *  # noqa: F403
from graftlab.testing.scores import *  # noqa: F403
from graftlab.testing.tasks import *  # noqa: F403

# The others are fitted to a hundred samples of layers, a second and more each.
pytest.mark.quick("fisher", "pc_label_correlation", "silhouette")(
    scores.test_the_informative_layer_is_found_the_more_surely_the_more_it_knows
)

# The others open MiniLM by packages that take seconds to import; their own tests have a small encoder.
OPENS_A_MODEL = ("bert_score", "sentence_transformers")
LIGHT = [n for n in measures.names() if measures.measure(n).module.PACKAGE not in OPENS_A_MODEL]
for name, promise in vars(metrics).items():
    if name.startswith("test_"):
        pytest.mark.quick(*LIGHT)(promise)
