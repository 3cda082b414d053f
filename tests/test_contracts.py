"""Every metric, score, task kind and kind of backbone keeps the promises of `graftlab.testing`."""

from graftlab.testing.backbones import *  # noqa: F403
from graftlab.testing.metrics import *  # noqa: F403
from graftlab.testing.scores import *  # noqa: F403
from graftlab.testing.tasks import *  # noqa: F403
