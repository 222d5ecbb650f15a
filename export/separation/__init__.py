"""From a recording to its voices: models, runtimes, chunks, streams.

Imports `pipeline`, `models`, `trainer` and `export.outlets`.
"""
