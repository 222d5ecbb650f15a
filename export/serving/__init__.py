"""The page of `export.serve`: who may ask, what is kept for whom, and the separation behind it."""
