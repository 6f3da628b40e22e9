"""The claim on a row that a worker works on."""


class Overtaken(Exception):
    """Somebody else advanced the thing meanwhile: nothing is wrong, and there is nothing left to do."""
