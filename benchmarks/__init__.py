"""What `make bench` runs: each figure as a ratio to its floor, both measured in the same run."""
