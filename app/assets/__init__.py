"""Stored results of jobs: videos and posters. Uploads of callers belong in another room, files."""
