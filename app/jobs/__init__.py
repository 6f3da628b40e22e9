"""Jobs: what callers do (api), what the worker does (engine), all SQL (db), and values and policies between them."""
