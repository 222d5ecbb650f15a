"""The job on Apache Beam: transforms, runners, workers, progress.

Imports the top of `pipeline`, `pipeline.io`, `pipeline.corpora` and `pipeline.dataset`. Elsewhere
in `pipeline`, only `pipeline.io.objects` imports Beam, for its file systems.
"""
