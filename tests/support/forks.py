"""Processes that cost milliseconds to start and nothing to kill: forks of a server that has imported everything."""

import multiprocessing
import sys

context = multiprocessing.get_context("forkserver")
# Under pytest's own script every fork would import pytest first.
context.set_forkserver_preload(["tests.support.preloaded", *(["pytest"] if "pytest" in sys.modules else [])])
