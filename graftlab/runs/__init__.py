"""One run, from its file to its scores."""
