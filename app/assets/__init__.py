"""Stored results of jobs: videos and posters. What callers upload belongs in a room of its own, files."""
