"""The worker: carries jobs out. Never loads a web framework."""
