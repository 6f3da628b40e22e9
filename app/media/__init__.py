"""Media: what receives, keeps, probes and serves large files. Knows no noun; assets and files are made with it."""
