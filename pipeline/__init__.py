"""Converts recordings to sharded TFRecord examples with an Apache Beam job."""
