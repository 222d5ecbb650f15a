"""From a recording to its voices: models, runtimes, chunks, streams.

Imports `pipeline`, `export.outlets` and `export.pretrained`.
"""
