"""`python -m worker`: what `streamline worker` runs."""

import argparse
import os
import sys

import structlog

from app.environment import need_data_dir, unknown_variables
from app.logs import configure_logging, route_everything
from app.settings import SettingsError, load_settings
from app.tracing import configure_tracing
from worker import metrics
from worker.celery_app import run_worker

log = structlog.get_logger(__name__)


def main() -> int:
    """Start a worker with the settings of the environment."""
    parser = argparse.ArgumentParser(prog="python -m worker", description="Carry out jobs, one at a time.")
    parser.add_argument("--leashed", action="store_true", help="end when standard input ends (the parent's death)")
    arguments = parser.parse_args()
    try:
        settings = load_settings()
        need_data_dir(settings)
        configure_logging()
        route_everything()
        for sentence in unknown_variables(os.environ):
            log.warning("unknown_setting", detail=sentence)
        configure_tracing("streamline-worker")
        metrics.serve(settings.worker_metrics)
        run_worker(settings, leashed=arguments.leashed)
    except SettingsError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 64
    return 0


if __name__ == "__main__":
    sys.exit(main())
