"""The web page of `export.serve`: access control, sessions, uploads and separation.

Imports `pipeline`, `export.outlets`, `export.pretrained`, `export.separation`,
`export.conversations` and `export.evaluation`.
"""
