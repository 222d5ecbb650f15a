"""Export formats for trained models, and the metadata stored with them.

Imports `pipeline` and `models`.
"""
