"""The version of the report's form, which the engine writes into it and the service publishes a JSON Schema of."""

from typing import Final

REPORT_VERSION: Final = 1
"""Counts up with every change that could break a reader; fields that are added do not. Without the field it is 0."""
