"""From a recording to its voices: models, runtimes, chunks, streams.

Imports `pipeline`, `models`, `export.outlets` and `export.pretrained`.
"""
