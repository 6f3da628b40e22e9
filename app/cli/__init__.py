"""The command line. Every module is the command of its name, except ``main`` and those with a leading underscore."""
