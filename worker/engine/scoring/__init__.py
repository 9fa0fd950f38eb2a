"""Metrics that say how little a window of layers changes the hidden state; one file each."""
