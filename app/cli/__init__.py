"""The command line. Each module without a leading underscore, except ``main``, is the command of its name."""
