"""Models that ship with the package: one small trained model, so that the first job needs no download."""
