"""Filmgate, a gateway before video-generation providers. docs/architecture.md, "Imports", says what belongs where."""
