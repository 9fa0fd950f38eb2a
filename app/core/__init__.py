"""Torch-free science that the service and the engine share: standard library and numpy only."""
