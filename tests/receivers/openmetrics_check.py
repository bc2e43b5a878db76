"""Judges a page on standard input by the strict OpenMetrics parser of the official Python client; exit 1 and the reason if it is bad."""

import sys

from prometheus_client.openmetrics.parser import text_string_to_metric_families

try:
    samples = sum(len(family.samples) for family in text_string_to_metric_families(sys.stdin.read()))
except ValueError as error:
    sys.exit(f"{error}")
print(samples)
