"""What a run is fed with: stored windows, dynamic mixing, acoustics, validation batches.

Imports `pipeline` and `models`; nothing from `trainer.run`.
"""
