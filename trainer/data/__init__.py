"""Training data: stored windows, dynamic mixing, acoustics, validation batches.

Imports `pipeline` and `trainer.config`, but nothing from `trainer.run`.
"""
