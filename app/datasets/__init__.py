"""Calibration and evaluation text that clients upload: checked on the way in, content-addressed, immutable."""
