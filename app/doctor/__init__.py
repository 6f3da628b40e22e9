"""What is stuck, and what to do about it: ``filmgate doctor``. It only reads."""
