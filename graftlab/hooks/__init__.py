"""What a run file brings between the loop's steps, whatever its method: one file a hook."""
