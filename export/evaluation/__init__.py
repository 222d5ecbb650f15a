"""Scoring, oracles and the report of `export.evaluate`.

Imports `pipeline`, `models`, `trainer`, `export.outlets` and `export.separation`.
"""
