"""The stand-in upstream: one dialect per file."""
