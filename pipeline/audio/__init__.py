"""From bytes to samples and back: containers, decoding, SPHERE.

Imports `pipeline.errors`, `pipeline.schema` and `pipeline.io`.
"""
