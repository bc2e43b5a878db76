#!/usr/bin/env python3
"""Judges a body for Datadog's series intake, read from standard input, by the models of Datadog's own client.

Usage: models.py v1|v2. Prints the number of series; the exit code is 1, with the reason, when the models do not take the body or
when it holds a field that they do not know, which the client alone would let pass.
"""

import json
import sys

from datadog_api_client import Configuration
from datadog_api_client.model_utils import ModelNormal, validate_and_convert_types
from datadog_api_client.v1.model.metrics_payload import MetricsPayload
from datadog_api_client.v2.model.metric_payload import MetricPayload


def judge(version, body):
    document = json.loads(body, parse_constant=no_number)
    model = {"v1": MetricsPayload, "v2": MetricPayload}[version]
    payload = validate_and_convert_types(document, (model,), ["body"], True, True, Configuration())
    expect_known(payload, "body")
    return len(payload.series)


def no_number(text):
    raise ValueError(f"{text} is no JSON")


def expect_known(part, place):
    if getattr(part, "_unparsed", False):
        raise ValueError(f"{place} is of no documented form")
    if isinstance(part, (list, tuple)):
        for at, item in enumerate(part):
            expect_known(item, f"{place}[{at}]")
    if not isinstance(part, ModelNormal):
        return  # A bare value, which the conversion has checked.
    for name, value in part._data_store.items():
        if name not in part.attribute_map:
            raise ValueError(f"{place}.{name} is no documented field")
        expect_known(value, f"{place}.{name}")


if __name__ == "__main__":
    try:
        print(judge(sys.argv[1], sys.stdin.buffer.read().decode("utf-8")))
    except Exception as refusal:
        sys.exit(f"{type(refusal).__name__}: {refusal}")
