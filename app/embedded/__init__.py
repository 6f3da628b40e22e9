"""Postgres, Valkey and the whole stack as children of one process: for ``filmgate dev``, the demo and the tests."""
