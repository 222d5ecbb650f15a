"""Layers shared by several networks, in `keras.ops`.

Imports `pipeline.ideal_masks` and `pipeline.io`, but no network.
"""
