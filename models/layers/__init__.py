"""Layers that several networks share, in `keras.ops`.

Imports `pipeline.ideal_masks` and `pipeline.io`; no network.
"""
