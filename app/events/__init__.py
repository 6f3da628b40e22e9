"""The event log of jobs, and the types of its events."""
