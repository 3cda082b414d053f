"""Every metric keeps the promises of `graftlab.testing`."""

from graftlab.testing.metrics import *  # noqa: F403
