"""Several processes: started, given shares, and kept in step, with weights whole or in shards."""
