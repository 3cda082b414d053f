"""Numbers of a weight that was changed: one file a quantity, each a column of the spectra."""
