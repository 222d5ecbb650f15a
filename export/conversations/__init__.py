"""Conversations: speaker tracking, gating, one speaker per channel, each person's signal.

Imports `pipeline`, `models` and `export.separation`.
"""
