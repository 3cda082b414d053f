"""Figures: each computed first and then drawn."""
