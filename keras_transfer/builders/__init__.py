"""Builders: a body and a head become a `keras.Model`."""
