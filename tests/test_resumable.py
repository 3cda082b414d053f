"""Every method goes on exactly after it was killed (the promise stands in `graftlab.testing.resume`).

Slow: every method is trained, killed and resumed.
"""

import pytest

from graftlab.testing.resume import *  # noqa: F403

pytestmark = pytest.mark.slow  # a run, a kill and a resume for each method
