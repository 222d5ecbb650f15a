"""Files and object stores: paths, listing, locks, atomic writing.

Imports `pipeline.errors` and `pipeline.file_names`.
"""
