"""What talks to the outside: Postgres, Redis, HTTP to customers' URLs, keys, logs, metrics."""
