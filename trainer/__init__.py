"""From TFRecord examples to a checkpoint: tf.data input, losses, callbacks and the command."""
