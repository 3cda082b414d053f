"""Texts become vectors: the texts of a file, an embedding model, and files that are written by blocks."""
