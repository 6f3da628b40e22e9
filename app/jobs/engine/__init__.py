"""What the worker does with jobs."""
