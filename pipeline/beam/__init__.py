"""The job on Apache Beam: transforms, runners, workers, progress.

Imports the top of `pipeline`, `pipeline.io`, `pipeline.corpora` and `pipeline.dataset`; elsewhere
in `pipeline` only `pipeline.io.objects` imports Beam, its file systems.
"""
