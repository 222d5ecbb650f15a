"""Separation networks and the signal processing around them, in `keras.ops`."""
