"""The job on Apache Beam: transforms, runners, workers, progress.

Imports everything else in `pipeline`; nothing else in it imports Beam.
"""
