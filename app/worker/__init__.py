"""The worker process: lanes, maintenance, health."""
