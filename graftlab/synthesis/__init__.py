"""Rows about texts that vectors stand for: by a model or of labelled data, checked, split, chosen from."""
