"""`make perf-guard`: instructions of hot paths, counted by callgrind and held against those in guard.json. Unlike times they are the same
on a busy machine; another compiler or processor may have others, and then they are written anew.

    guard.py [--update]
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile

import run

KEPT = pathlib.Path(__file__).with_name("guard.json")
# So much more is a regression; so much less, and the kept figure is out of date.
TOLERANCE = 0.05
PATH = ["read-report", "inflate-report", "render-prometheus"]
PATH += [f"encode-{store}" for store in ["circonus_push", "datadog", "grafana", "graphite", "influxdb", "remote_write"]]
# Appended only; appended and then moved to the archive.
KEEPING = ["append", "archive"]
# The others take minutes each, as their data is made under the counter.
SHAPES = ["Q2"]


def instructions(words):
    with tempfile.NamedTemporaryFile() as out:
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out.name}", *words]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    return int(re.search(r"Collected : (\d+)", said)[1])


def one(words):
    """What one time more costs: what is made before it is in both."""
    return instructions([*words, "2"]) - instructions([*words, "1"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--update", action="store_true")
    update = parser.parse_args().update
    path, keeping, shapes = run.build("server", "path"), run.build("reports", "keeping"), run.build("columns", "shapes")
    works = [(f"path {work}", [path, "guard", work]) for work in PATH]
    works += [(f"keeping {work}", [keeping, "guard", work]) for work in KEEPING]
    works += [(f"shape {shape}", [shapes, "guard", shape]) for shape in SHAPES]
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    found, worse = {}, []
    for name, words in works:
        found[name] = one(words)
        before = kept.get(name)
        change = f"{found[name] / before - 1:+8.1%}" if before else "     new"
        print(f"{name:28} {found[name]:15,} {change}", flush=True)
        if not before or abs(found[name] / before - 1) > TOLERANCE:
            worse.append(name)
    if update:
        KEPT.write_text(json.dumps(found, indent=1) + "\n")
    elif worse:
        sys.exit(f"not within {TOLERANCE:.0%} of bench/guard.json: {', '.join(worse)}; if that is meant: make perf-guard UPDATE=--update")


if __name__ == "__main__":
    main()
