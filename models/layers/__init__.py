"""Layers that several networks share, in `keras.ops`.

Imports `pipeline.schema` and `models.spectral`; no network.
"""
