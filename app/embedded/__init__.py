"""Runs Postgres, Valkey and the whole stack as child processes: for ``filmgate dev``, the demo and the tests."""
