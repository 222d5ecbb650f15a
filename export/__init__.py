"""Exports, runs, evaluates and serves trained models."""
