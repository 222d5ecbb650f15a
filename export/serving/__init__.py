"""The page of `export.serve`: who may ask, what is kept for whom, and the separation behind it.

Imports `pipeline`, `export.separate`, `export.outlets`, `export.pretrained`, `export.separation`
and `export.evaluation`.
"""
