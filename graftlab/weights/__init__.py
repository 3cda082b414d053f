"""Pretrained weights: found, fetched, read in 4 or 8 bits, taken apart, or one layer at a time."""
