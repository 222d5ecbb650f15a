"""Separates recordings into voices: model loading, chunks, streams and outputs.

Imports `pipeline`, `models`, `export.outlets` and `export.pretrained`.
"""
