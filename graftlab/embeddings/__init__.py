"""Texts become vectors: the texts of a file, and files of vectors that are written by blocks."""
