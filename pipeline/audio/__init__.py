"""Audio decoding and encoding: containers, codecs, SPHERE.

Imports `pipeline.errors` and `pipeline.io`.
"""
