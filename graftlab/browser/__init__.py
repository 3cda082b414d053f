"""A folder of runs in a browser of this machine: states, curves of what trains, stop and resume."""
