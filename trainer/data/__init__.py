"""What a run is fed with: stored windows, dynamic mixing, acoustics, validation batches.

Imports `pipeline` and `trainer.config`; nothing from `trainer.run`.
"""
