"""`python -m app.cli`: the same as `streamline`."""

from app.cli import main

main()
