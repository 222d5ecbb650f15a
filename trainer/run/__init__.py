"""The life of a run: its folder, state, callbacks, curves and devices.

Imports `pipeline`, the top of `trainer` and `trainer.data`.
"""
