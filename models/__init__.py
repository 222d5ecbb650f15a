"""Networks that separate, and the signal processing around them, in `keras.ops`."""
