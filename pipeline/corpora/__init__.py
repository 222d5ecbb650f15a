"""The inputs of a job: TIMIT, folders, manifests, mixture lists, the synthetic corpus.

Imports the top of `pipeline`, `pipeline.io` and `pipeline.audio`.
"""
