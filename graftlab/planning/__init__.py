"""What a run takes, before it: parameters, memory by part, steps, disk, downloads, and warnings."""
