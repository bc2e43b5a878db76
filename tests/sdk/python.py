"""Drives backtracepython. See README.md for what goes in and out."""

import json
import queue
import sys

import backtracepython
from backtracepython import client


def main():
    """Sends one report for each line of standard input and prints what the SDK made of the reply."""
    url, token = (sys.argv[1:] + [None])[:2]
    backtracepython.initialize(endpoint=url, token=token, disable_global_handler=True)
    outcomes = observe_outcomes()
    for line in sys.stdin:
        send(json.loads(line))
        rxid = outcomes.get(timeout=30)
        print(json.dumps({"ok": True, "rxid": rxid} if rxid else {"ok": False, "detail": "refused"}), flush=True)


def observe_outcomes():
    """The SDK sends on its own thread and keeps the outcome to itself: the receipt id, or None for every failure."""
    outcomes = queue.Queue()
    handler = client.globs.handler.request_handler
    original = handler.send

    def observed(report, attachments):
        outcome = original(report, attachments)
        outcomes.put(outcome)
        return outcome

    handler.send = observed
    return outcomes


def send(wanted):
    """Builds a report as an application would, so that message and exception take the SDK's own different ways."""
    report = backtracepython.BacktraceReport()
    if wanted["kind"] == "message":
        report.set_attribute("error.message", wanted["text"])
        report.set_attribute("error.type", "Message")
    else:
        classifier = type(wanted.get("classifier", "Exception"), (Exception,), {})
        try:
            raise classifier(wanted["text"])
        except classifier:
            report.capture_last_exception()
    report.set_dict_attributes(wanted.get("attributes", {}))
    for path in wanted.get("attachments", []):
        report.add_attachment(path)
    report.send()


main()
