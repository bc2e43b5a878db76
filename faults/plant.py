"""Plants bugs, one at a time, and sees whether the tests that ought to catch them do.

It works on a copy of the last commit, never on the tree it is called from. A bug that is not caught, or whose place is not found any
more, is an error: then a test guards less than it seems to, or this list is out of date.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile

SIMULATION = ["-p", "export", "--test", "export", "whatever_goes_wrong"]
CRASHES = ["-p", "reports", "--lib", "crash::"]
RECEIVERS = ["-p", "server", "--test", "it"]

# What is planted, where, instead of what, and the tests that have to fail.
BUGS = [
    ("a commit is answered before it is on the disk", "crates/reports/src/log.rs", "        self.file.sync()?;\n        let read", "        let read", CRASHES),
    (
        "a segment of the log goes before its manifest is written",
        "crates/reports/src/archive.rs",
        """        manifest.write(self.disk.as_ref(), &self.log, name)?;
        self.shelf.with(name, |segment| *segment = Segment::from(manifest));
        self.disk.remove(&name.log(&self.log))""",
        """        self.disk.remove(&name.log(&self.log))?;
        manifest.write(self.disk.as_ref(), &self.log, name)?;
        self.shelf.with(name, |segment| *segment = Segment::from(manifest));
        Ok(())""",
        CRASHES,
    ),
    (
        "a window is left out",
        "crates/export/src/sealer.rs",
        "        let window = period.first_window_from(from);\n        if snapshot",
        "        let window = period.first_window_from(from);\n        let window = if window.start_secs() % 41 == 0 { window.next() } else { window };\n        if snapshot",
        SIMULATION,
    ),
    (
        "downtime is filled with zeros",
        "crates/export/src/sealer.rs",
        "        if let Some(until) = gap_until(&downtimes, window) {\n            self.catalog",
        "        if let Some(until) = gap_until(&downtimes, window).filter(|_| false) {\n            self.catalog",
        SIMULATION,
    ),
    (
        "the newest window is sent first",
        "crates/catalog/src/delivery.rs",
        "ORDER BY backfill, aside, start LIMIT 1",
        "ORDER BY backfill, aside, start DESC LIMIT 1",
        SIMULATION,
    ),
    (
        "a broken connection is taken for an answer",
        "crates/export/src/deliver.rs",
        "                Err(failure) => verdict_of(failure),",
        "                Err(Failure::Broken(_)) => Verdict::Accepted { confirmed: true },\n                Err(failure) => verdict_of(failure),",
        SIMULATION,
    ),
    (
        "a window is encoded by the settings of today",
        "crates/export/src/deliver.rs",
        "let revision = store.in_force(window.start()).unwrap_or_else(|| store.newest());\n            let batch",
        "let revision = store.newest();\n            let batch",
        SIMULATION,
    ),
    (
        "what was settled stays open",
        "crates/catalog/src/delivery.rs",
        "               open = open - ?9, attempts = attempts + ?10,",
        "               open = open - ?9 + (start % 41 = 0), attempts = attempts + ?10,",
        SIMULATION,
    ),
    (
        "the comma in a label is not escaped",
        "crates/adapters/src/influxdb.rs",
        "    while let Some(at) = rest.find(special) {",
        "    while let Some(at) = rest.find(special).filter(|_| !special.contains(&'=')) {",
        ["-p", "adapters", "--lib", "conformance"],
    ),
    (
        "a token opens every project",
        "crates/server/src/auth.rs",
        "filter(move |project| bound.is_none_or(|bound| bound == project.id))",
        "filter(move |_| bound.is_none_or(|_| true))",
        [*RECEIVERS, "bad_input::", "hostile::n026"],
    ),
]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("only", nargs="?", default="", help="a part of the bug's description")
    parser.add_argument("--cargo", default="cargo")
    args = parser.parse_args()
    root = pathlib.Path(__file__).resolve().parent.parent
    missed = []
    with tempfile.TemporaryDirectory(prefix="crashmeter-plant-") as folder:
        tree = pathlib.Path(folder) / "tree"
        subprocess.run(["git", "-C", root, "worktree", "add", "--quiet", "--detach", tree], check=True)
        try:
            for what, name, good, bad, tests in BUGS:
                if args.only not in what:
                    continue
                path = tree / name
                text = path.read_text()
                if text.count(good) != 1:
                    print(f"NOT FOUND: {what}: {name} has its place {text.count(good)} times")
                    missed.append(what)
                    continue
                path.write_text(text.replace(good, bad))
                where, filters = (tests[: tests.index("it") + 1], tests[tests.index("it") + 1 :]) if "it" in tests else (tests, [])
                command = [args.cargo, "test", "--locked", *where, *(["--", *filters] if filters else [])]
                run = subprocess.run(command, cwd=tree, capture_output=True, text=True)
                path.write_text(text)
                output = run.stdout + run.stderr
                if "error: could not compile" in output or "error[E" in output:
                    print(f"DOES NOT BUILD: {what}\n{output[-2000:]}")
                    missed.append(what)
                    continue
                caught = [line.split()[1] for line in output.splitlines() if line.startswith("test ") and line.endswith("FAILED")]
                print(f"{'caught' if caught else 'MISSED'}: {what}: {', '.join(caught)}", flush=True)
                if not caught:
                    missed.append(what)
        finally:
            subprocess.run(["git", "-C", root, "worktree", "remove", "--force", tree], check=False)
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
