"""Rows, from wherever they are: read, checked, split."""
