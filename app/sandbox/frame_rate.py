"""The frame rate of the sandbox's videos."""

FPS = 24
