"""The web page of `export.serve`: access control, sessions, uploads and separation.

Imports `pipeline`, `export.separate`, `export.outlets`, `export.pretrained`, `export.separation`
and `export.evaluation`.
"""
