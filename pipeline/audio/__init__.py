"""From bytes to samples and back: containers, decoding, SPHERE.

Imports `pipeline.errors` and `pipeline.io`.
"""
