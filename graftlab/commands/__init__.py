"""The commands: options, one call, printing."""
