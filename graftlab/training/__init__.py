"""The loop, and all that it needs."""
