"""Pretrained models that read texts: an embedding model, and how it is asked."""
