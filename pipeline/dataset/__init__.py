"""The output of a job: records, shards, statistics and the files about a dataset.

Imports the top of `pipeline`, `pipeline.io`, `pipeline.audio` and `pipeline.corpora`.
"""
