"""From recordings to sharded TFRecord examples, by an Apache Beam job."""
