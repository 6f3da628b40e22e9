"""Files that callers give: the inputs of their jobs."""
