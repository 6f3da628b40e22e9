"""Read-only diagnosis for ``filmgate doctor``: each finding states a problem and what to do about it."""
