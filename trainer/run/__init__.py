"""Everything about a run: its folder, state, callbacks, curves and devices.

Imports `pipeline`, the top level of `trainer` and `trainer.data`.
"""
