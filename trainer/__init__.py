"""Training: tf.data input, losses, callbacks and the command."""
