"""Every metric, score, task kind and kind of backbone keeps the promises of `graftlab.testing`."""

import pytest

from graftlab.testing import scores
from graftlab.testing.backbones import *  # noqa: F403
from graftlab.testing.metrics import *  # noqa: F403
from graftlab.testing.scores import *  # noqa: F403
from graftlab.testing.tasks import *  # noqa: F403

# The others are fitted to a hundred samples of layers, a second and more each.
pytest.mark.quick("fisher", "pc_label_correlation", "silhouette")(
    scores.test_the_informative_layer_is_found_the_more_surely_the_more_it_knows
)
