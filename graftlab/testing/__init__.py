"""What every method, metric and task promises, as tests: also for those that live in other packages.

from graftlab.testing.methods import *  # in a test file; pytest -k my_method
"""
