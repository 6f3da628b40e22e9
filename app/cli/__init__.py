"""The command line. Every module is the command of its name, except ``main`` and those with a leading underscore.

There is nothing to register: ``main`` finds them by their file names.
"""
