"""`python -m worker`: what `streamline worker` runs."""

import argparse
import sys

from app.logs import configure_logging
from app.settings import SettingsError, load_settings
from app.tracing import configure_tracing
from worker import metrics
from worker.celery_app import run_worker


def main() -> int:
    """Start a worker with the settings of the environment."""
    parser = argparse.ArgumentParser(prog="python -m worker", description="Carry out jobs, one at a time.")
    parser.add_argument("--leashed", action="store_true", help="end when standard input ends (the parent's death)")
    arguments = parser.parse_args()
    try:
        settings = load_settings()
    except SettingsError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 64
    configure_logging()
    configure_tracing("streamline-worker")
    metrics.serve(settings.worker_metrics)
    try:
        run_worker(settings, leashed=arguments.leashed)
    except SettingsError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 64
    return 0


if __name__ == "__main__":
    sys.exit(main())
