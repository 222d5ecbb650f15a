"""Formats that a trained model is exported to, and what is stored beside it.

Imports `pipeline` and `models`.
"""
