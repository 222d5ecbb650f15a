"""Conversations: who is who, who speaks alone, a speaker on each channel, each person's signal.

Imports `pipeline`, `models` and `export.separation`.
"""
