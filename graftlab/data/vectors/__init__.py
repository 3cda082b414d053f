"""Vectors as data: files of embeddings, read where they are asked for, and what makes them comparable."""
