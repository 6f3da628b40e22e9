"""Adapters of video-generation providers, one file each, and their catalogue."""
