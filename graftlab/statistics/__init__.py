"""Statistics of comparisons: intervals, tests and orders of scores; arrays in, records out."""
