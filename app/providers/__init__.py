"""Adapters of video-generation providers, and their catalogue.

Each has a file here, a file of its models in ``catalog/`` and an entry in ``registry.ADAPTERS``.
"""
