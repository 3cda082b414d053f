"""The run directory: what is in it, how its files are written, and where its contents came from."""
