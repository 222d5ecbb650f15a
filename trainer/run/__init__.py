"""The life of a run: its folder, state, callbacks, curves and devices.

Imports `pipeline`, `models`, `trainer.data` and the top of `trainer`.
"""
