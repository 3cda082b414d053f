"""Pretrained models, ready to be adapted: a module a kind, and a catalogue of known ones."""
