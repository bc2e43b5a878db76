"""`make bench`: makes the data once, asks ours and the peers the same in turn, compares the answers, then the times, and writes
docs/benchmarks.md and docs/benchmarks.json. With fewer reports than the goals speak of it prints the page and leaves the docs alone.

    run.py --data FOLDER [--rows N] [--stages warm,cold,metrics,path,page,growth] [--runs N] [--shapes Q3,Q6]

What each stage found is written down at once, so that stages can be run one by one. With only some shapes of Explore the docs are left
alone, too.
"""

import argparse
import contextlib
import datetime
import glob
import hashlib
import itertools
import json
import math
import os
import pathlib
import platform
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile

import growth
import page
import queries
import served

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
GOAL_ROWS = 10_000_000
# The window of the metrics, as a share of the day's reports, and of the small one.
WINDOW_SHARE, SMALL_SHARE = 0.12, 0.002
WINDOW_SECS = 60
METRICS, MANY_METRICS = 1_000, 10_000
# Series of a metric.
SEATS = 1_000
# Peers are asked one query a metric for so many of them; the time is scaled to all.
SAMPLE = 200
NATIVE = ["duckdb", "chdb", "polars"]
ON_FILES = ["duckdb", "chdb", "polars", "datafusion"]


class Worker:
    """Ours or a peer in a process of its own."""

    def __init__(self, *words):
        self.words = [str(word) for word in words]
        self.process = subprocess.Popen(self.words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.opened = self.read()

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"ended without an answer: {' '.join(self.words[:4])}")
        return json.loads(line)

    def ask(self, command):
        LOADS.append(os.getloadavg()[0])
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        return self.read()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()


# What is known of a stage beside its rows: when, how busy the machine was, which one.
MEASURED = ["date", "load", "machine"]
# The load of the machine at each question of a stage, our own work included.
LOADS = []


class Bench:
    def __init__(self, arguments):
        self.data, self.rows, self.runs = pathlib.Path(arguments.data).resolve(), arguments.rows, arguments.runs
        self.data.mkdir(parents=True, exist_ok=True)
        self.program = build("reports", "evaluation")
        self.shapes = [shape for shape in queries.SHAPES if not arguments.shapes or shape.name in arguments.shapes.split(",")]
        self.scratch = None

    def make(self, name, rows, secs):
        """A store with reports in files, made unless it is there from this very writer."""
        folder, stamp = self.data / f"{name}-{rows}", self.data / f"{name}-{rows}.json"
        writers = [ROOT / "crates/reports/benches/evaluation.rs", *sorted((ROOT / "crates/reports/src/parquet").glob("*.rs"))]
        writer = hashlib.sha256(b"".join(path.read_bytes() for path in writers)).hexdigest()
        if not stamp.exists() or json.loads(stamp.read_text())["writer"] != writer:
            say(f"making {rows:,} reports")
            shutil.rmtree(folder, ignore_errors=True)
            made = json.loads(subprocess.check_output([self.program, "make", folder, str(rows), str(secs)]))
            stamp.write_text(json.dumps(made | {"writer": writer}))
        return folder, json.loads(stamp.read_text())

    def day(self):
        return self.make("day", self.rows, queries.DAY)

    def window_rows(self):
        return int(self.rows * WINDOW_SHARE)

    def ours(self, *words):
        return Worker(self.program, *words)

    def peer(self, engine, form, folder):
        scratch = tempfile.mkdtemp(dir=self.scratch)
        return Worker(sys.executable, HERE / "peers.py", engine, form, scratch, parquet(folder))

    # The stages. Each returns its rows for the page.

    def warm(self):
        folder, made = self.day()
        opened = []
        for _ in range(self.runs):
            with self.ours("stored", folder) as worker:
                opened.append(worker.opened)
        with contextlib.ExitStack() as stack:
            workers = {"ours": stack.enter_context(self.ours("stored", folder))}
            for engine in NATIVE:
                say(f"loading {engine}")
                workers[engine] = stack.enter_context(self.peer(engine, "native", folder))
            rows, memory = [], {}
            for shape in self.shapes:
                say(f"warm {shape.name}")
                compare_shape(shape, workers)
                runs = {engine: [] for engine in workers}
                for _ in range(self.runs):
                    for engine, worker in workers.items():
                        told = ask_shape(worker, engine, shape)
                        runs[engine].append(told["wall"])
                        memory[engine] = told["resident"]
                rows.append(row(f"warm {shape.name}: {shape.title}", "s", runs, goal=1 / 1.5, reach=1 / 3))
        rows.append(together("warm, six shapes, geometric mean", rows, goal=1 / 4, reach=1 / 8))
        held = {engine: [bytes / 1e9] for engine, bytes in memory.items()}
        rows.append(row("memory after the six shapes, warm", "GB", held))
        name = f"open the store of {self.rows:,} reports (the part of being ready that grows with them)"
        rows.append(row(name, "s", {"ours": [one["opened"] for one in opened]}, goal=1, reach=0.3))
        held = {"ours": [one["resident"] / 2**20 for one in opened]}
        rows.append(row("memory of a process that has just opened it and does nothing else", "MiB", held, goal=96, reach=48))
        sizes = {"ours": [made["archive_bytes"] / made["reports"]], "its JSON": [made["json_bytes"] / made["reports"]]}
        rows.append(row("bytes on disk a slim report, raw kept, files of the archive", "bytes", sizes, goal=1 / 5, reach=1 / 8))
        return rows

    def cold(self):
        folder, _ = self.day()
        rows, left = [], []
        for shape in self.shapes:
            say(f"cold {shape.name}")
            runs = {engine: [] for engine in ["ours", *ON_FILES]}
            for _ in range(max(3, self.runs - 2)):
                answers = {}
                for engine in runs:
                    left.append(evict(folder))
                    with self.ours("stored", folder) if engine == "ours" else self.peer(engine, "files", folder) as worker:
                        told = ask_shape(worker, engine, shape)
                    runs[engine].append(told["wall"])
                    answers[engine] = told["answers"]
                for engine in ON_FILES:
                    if answers[engine] != answers["ours"]:
                        sys.exit(f"cold {shape.name}: {engine} answers {answers[engine]}, we {answers['ours']}")
            rows.append(row(f"cold {shape.name}: {shape.title}", "s", runs, goal=1, reach=1 / 2))
        total = sum(os.path.getsize(path) for path in glob.glob(parquet(folder)))
        rows.append(together("cold, six shapes, geometric mean", rows, goal=1, reach=1 / 2))
        rows[-1]["note"] = f"of {total / 1e9:.2f} GB of files at most {max(left) / 1e9:.2f} GB were in the page cache before a question"
        return rows

    def metrics(self):
        metrics = queries.metrics(METRICS)
        rows = []
        folder, _ = self.make("window", self.window_rows(), WINDOW_SECS)
        with self.live(self.window_rows()) as ours:
            say("metrics: ours, as a window is sealed")
            sealed, last = self.seal(ours, metrics)
            resident = last["resident"]
            say("metrics: ours, every group")
            answers = ask_metrics(ours, metrics)["answers"]
            failed = [answer["error"] for answer in answers if "error" in answer]
            if failed:
                sys.exit(f"{len(failed)} metrics failed: {failed[0]}")
            whole = [ask_metrics(ours, metrics, told=False)["cpu"] for _ in range(self.runs)]
            cpu = {"ours": whole}
            combined = {"ours": whole}
            for engine in ["duckdb", "chdb"]:
                with self.peer(engine, "native", folder) as worker:
                    say(f"metrics: {engine}, one query a metric")
                    cpu[engine] = self.one_by_one(engine, worker, ours, metrics, answers)
                    say(f"metrics: {engine}, combined by hand")
                    combined[engine] = self.combined(engine, worker, ours, metrics, answers)
            groups = sum(answer["groups"] for answer in answers)
            what = f"{METRICS:,} metrics over {self.window_rows():,} reports"
            ours_sealed = {"ours": [one["cpu"] for one in sealed]}
            rows.append(row(f"{what}, peers one query a metric (CPU)", "s", cpu | ours_sealed, goal=1 / 60, reach=1 / 100))
            rows[-1]["note"] = (
                f"ours as a window is sealed: the {SEATS:,} groups of a metric that had a seat before, as many others with most reports "
                f"({last['groups']:,} groups in all), and for {last['over']} metrics all beyond their {SEATS:,} seats as one exact series; peers "
                f"answer with every group, and were asked {SAMPLE} of the metrics, scaled to {METRICS:,}; our process has "
                f"{resident / 1e9:.2f} GB"
            )
            rows.append(row(f"{what}, peers combined by hand (CPU)", "s", combined | ours_sealed, goal=1 / 2, reach=1 / 5))
            rows.append(row(f"{what}, every group of ours too, peers one query a metric (CPU)", "s", cpu))
            rows[-1]["note"] = f"{groups:,} groups in all our tables; these tables are what was compared"
            say("metrics: ten times as many")
            rows += self.tenfold(ours)
        with self.live(int(self.rows * SMALL_SHARE)) as ours:
            say("metrics: many over a small window")
            many = queries.metrics(MANY_METRICS)
            cpu = {"ours": [one["cpu"] for one in self.seal(ours, many)[0]]}
            name = f"{MANY_METRICS:,} metrics over a live window of {int(self.rows * SMALL_SHARE):,} reports (CPU)"
            rows.append(row(name, "s", cpu, goal=2, reach=1))
        return rows

    def seal(self, ours, metrics):
        """What the sealing of a window asks, checked against the whole tables once; the figures of each run, and the last of them."""
        ask = {"queries": metrics, "span": (0, WINDOW_SECS), "seats": SEATS, "rows": False, "accepted": True}
        different = ours.ask(ask | {"told": True})["different"]
        if different:
            sys.exit(f"{different} metrics have other groups than their whole tables, or another rest than when asked alone")
        runs = [ours.ask(ask | {"told": False}) for _ in range(self.runs)]
        return runs, runs[-1]

    def live(self, rows):
        return self.ours("live", tempfile.mkdtemp(dir=self.scratch), rows, WINDOW_SECS)

    def one_by_one(self, engine, worker, ours, metrics, answers):
        for number, metric in enumerate(metrics[:SAMPLE]):
            told = worker.ask({"metric": metric})["answers"][0]
            check_metric(f"{engine}, metric {number}", metric, told, answers[number], ours, lambda: worker.ask({"metric": metric, "rows": True}))
        rounds = range(3)
        asked = [{"metric": metric, "told": False} for metric in metrics[:SAMPLE]]
        return [sum(worker.ask(command)["cpu"] for command in asked) * METRICS / len(asked) for _ in rounds]

    def combined(self, engine, worker, ours, metrics, answers):
        by_key = {}
        for number, metric in enumerate(metrics):
            by_key.setdefault(tuple(sorted(metric["group"])), []).append(number)
        commands = []
        for numbers in by_key.values():
            # The same attributes in another order are the same groups.
            asked = [metrics[number] | {"group": metrics[numbers[0]]["group"]} for number in numbers]
            commands.append({"metrics": asked, "told": False})
            told = worker.ask({"metrics": asked})["answers"]
            for place, (number, metric) in enumerate(zip(numbers, asked)):
                again = lambda: {"answers": [worker.ask({"metrics": asked, "rows": True})["answers"][place]]}
                answer = answers[number]
                if metric["group"] != metrics[number]["group"]:
                    answer = ask_metrics(ours, [metric])["answers"][0]
                check_metric(f"{engine} combined, metric {number}", metric, told[place], answer, ours, again)
        return [sum(worker.ask(command)["cpu"] for command in commands) for _ in range(3)]

    def tenfold(self, ours):
        rows = []
        for what, draw, goal, reach in [
            ("shared filters", queries.metrics, 5, 3),
            ("a filter for each", queries.disjoint_metrics, 11, 8),
        ]:
            few, many = draw(METRICS // 10), draw(METRICS)
            cpu = {}
            for who, metrics in [("a tenth of them", few), ("ours", many)]:
                cpu[who] = [one["cpu"] for one in self.seal(ours, metrics)[0]]
            rows.append(row(f"ten times the metrics on one window, {what} (CPU)", "s", cpu, goal=goal, reach=reach))
        return rows

    def path(self):
        tool, program = build("server", "path"), program_of()
        say("the path of a report")
        printed = subprocess.check_output([tool], text=True)
        rows = [{"goal": None, "reach": None} | json.loads(line) for line in printed.splitlines() if line.startswith("{")]
        for one in rows:
            if one["peer"] is not None and one["name"].startswith(("render", "encode")):
                one["goal"], one["reach"] = 1 / 3, 1 / 6
        say("the path of a report: intake over HTTP")
        told = served.intake(program, tool, self.scratch, min(self.runs, 5))
        say("the path of a report: seals")
        told += served.sealing(program, self.scratch, 10)
        say("the path of a report: a start")
        told += served.ready(program, tool, self.scratch, self.day()[0])
        return rows + [told_row(one) for one in told]

    def growth(self):
        rows = []
        counts = [self.rows // 10, self.rows * 3 // 10, self.rows, self.rows * 3]
        for what, points in [
            ("stores", growth.stores(program_of(), self.scratch)),
            ("metrics", growth.metrics(self, int(self.rows * SMALL_SHARE))),
            ("groups", growth.groups(self, ask_metrics)),
            ("reports", growth.reports(self, ask_shape, counts)),
        ]:
            say(f"growth: {what}")
            rows += points
        return rows

    def page(self):
        say("the page")
        environment = os.environ | {"CRASHMETER": str(program_of()), "CRASHMETER_E2E_OUT": f"{self.scratch}/page"}
        subprocess.check_call(["make", "--silent", "web"], cwd=ROOT)
        printed = subprocess.check_output(["npm", "run", "--prefix", "web", "--silent", "bench"], cwd=ROOT, env=environment, text=True)
        told = json.loads(next(line for line in printed.splitlines() if line.startswith("{")))
        seconds = [one / 1e3 for one in told["milliseconds"]]
        return [row("1,000 rows of Explore, from the click to the paint", "s", {"ours": seconds}, goal=0.3, reach=0.15)]


def told_row(told):
    made = row(told["what"], told["unit"], told["runs"], told["goal"], told["reach"])
    if told.get("absolute"):
        # Peers stand beside it; the goal is a bound of its own.
        made["ratio"] = None
    return made | ({"note": told["note"]} if "note" in told else {})


def program_of():
    """The server itself, built for release."""
    words = [os.environ.get("CARGO", "cargo"), "build", "--release", "--locked", "--package", "server", "--bin", "crashmeter"]
    printed = subprocess.check_output([*words, "--message-format=json-render-diagnostics"], cwd=ROOT)
    made = [json.loads(line) for line in printed.splitlines()]
    return next(one["executable"] for one in made if one.get("executable") and one["target"]["name"] == "crashmeter")


def build(package, bench):
    """A bench program, built for release."""
    words = [os.environ.get("CARGO", "cargo"), "build", "--release", "--locked", "--package", package, "--bench", bench]
    printed = subprocess.check_output([*words, "--message-format=json-render-diagnostics"], cwd=ROOT)
    made = [json.loads(line) for line in printed.splitlines()]
    return next(one["executable"] for one in made if one.get("executable") and one["target"]["name"] == bench)


def parquet(folder):
    return f"{folder}/parquet/1/*.parquet"


def ask_shape(worker, engine, shape, rows=False):
    if engine != "ours":
        return worker.ask({"shape": shape.name, "rows": rows})
    return worker.ask({"queries": [shape.ours], "span": shape.span, "top": shape.top, "told": True, "rows": rows, "accepted": False})


def ask_metrics(ours, metrics, told=True, rows=False):
    return ours.ask({"queries": metrics, "span": (0, WINDOW_SECS), "told": told, "rows": rows, "accepted": True})


def compare_shape(shape, workers):
    answers = {engine: ask_shape(worker, engine, shape)["answers"][0] for engine, worker in workers.items()}
    for engine, answer in answers.items():
        if answer != answers["ours"]:
            ours, theirs = (ask_shape(workers[one], one, shape, rows=True)["answers"][0]["rows"] for one in ("ours", engine))
            differ(f"{shape.name}, {engine}", ours, theirs)


def check_metric(what, metric, theirs, ours, worker, again):
    """Compares answers by their digests; where only roundings of means can differ, row by row."""
    if ours == theirs:
        return
    ours = ask_metrics(worker, [metric], rows=True)["answers"][0]["rows"]
    theirs = again()["answers"][0]["rows"]
    if not any(one["op"] == "mean" for one in metric["aggregates"]) or not are_near(ours, theirs, len(metric["group"])):
        differ(f"{what}: {json.dumps(metric)}", ours, theirs)


def are_near(ours, theirs, keys):
    ours, theirs = ({tuple(line.split("\t")[:keys]): line.split("\t")[keys:] for line in lines} for lines in (ours, theirs))
    near = lambda a, b: a == b or math.isclose(number(a), number(b), rel_tol=1e-12)
    return ours.keys() == theirs.keys() and all(all(map(near, cells, theirs[key])) for key, cells in ours.items())


def number(cell):
    try:
        return struct.unpack(">d", bytes.fromhex(cell[1:]))[0] if cell.startswith("~") else float(cell[1:])
    except ValueError:
        return math.nan


def differ(what, ours, theirs):
    ours, theirs = set(ours), set(theirs)
    print(f"{what}: the answers differ", file=sys.stderr)
    for who, lines in ("only ours", ours - theirs), ("only theirs", theirs - ours):
        print(f"  {who}: {len(lines)}, such as {sorted(lines)[:3]}", file=sys.stderr)
    sys.exit(1)


def evict(folder):
    """Asks the kernel to forget the files' pages; returns how many bytes it still has."""
    left = 0
    for path in glob.glob(parquet(folder)):
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    for line in subprocess.check_output(["fincore", "--bytes", "--noheadings", "--output", "RES", *glob.glob(parquet(folder))]).split():
        left += int(line)
    return left


def row(name, unit, runs, goal=None, reach=None):
    """A row of the page from the figures of each engine, ours among them; the peer is the best of the others."""
    medians = {engine: statistics.median(many) for engine, many in runs.items()}
    spread = {engine: [min(many), max(many)] for engine, many in runs.items()}
    peers = {engine: median for engine, median in medians.items() if engine != "ours"}
    best = min(peers, key=peers.get, default=None)
    ratio = medians["ours"] / peers[best] if best else None
    row = {"name": name, "ours": medians["ours"], "peer": peers.get(best), "unit": unit, "ratio": ratio, "goal": goal, "reach": reach}
    return row | {"runs": len(runs["ours"]), "best": best, "peers": peers, "spread": spread}


def together(name, rows, goal, reach):
    mean = lambda key: math.exp(statistics.fmean(math.log(row[key]) for row in rows))
    row = {"name": name, "ours": mean("ours"), "peer": mean("peer"), "unit": "s", "ratio": mean("ratio"), "goal": goal, "reach": reach}
    worst = max(rows, key=lambda row: row["ratio"])
    return row | {"runs": rows[0]["runs"], "note": f"worst: {worst['ratio']:.2f}, {worst['name']}"}


def machine():
    with open("/proc/cpuinfo") as lines:
        model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return f"{os.cpu_count()} cores ({model}), {memory / 2**30:.0f} GiB, Linux {platform.release()}"


def say(text):
    print(f"{datetime.datetime.now():%H:%M:%S} {text}", file=sys.stderr, flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--rows", type=int, default=GOAL_ROWS)
    parser.add_argument("--stages", default="warm,cold,metrics,path,page,growth")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--shapes", help="only these of Explore")
    arguments = parser.parse_args()
    bench = Bench(arguments)
    kept = bench.data / f"results-{arguments.rows}.json"
    published = ROOT / "docs/benchmarks.json"
    # Stages that are not asked for stand as they were last written down.
    is_whole = arguments.rows == GOAL_ROWS and not arguments.shapes
    results = read_back(published) if is_whole and published.exists() else {}
    for stage in arguments.stages.split(","):
        LOADS[:] = [os.getloadavg()[0]]
        with tempfile.TemporaryDirectory(dir=bench.data) as bench.scratch:
            rows = getattr(bench, stage)()
        load = [min(LOADS), max(LOADS)]
        date = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M")
        results[stage] = {"date": date, "load": load, "machine": machine(), "rows": rows}
        kept.write_text(json.dumps(results, indent=1))
        if is_whole:
            write_down(results, published)
    print(page.write(results, arguments.rows, versions()))


def write_down(results, published):
    """The page and its data, after each stage: what a later one runs into costs nothing of it. Both have rounded figures, so that the page
    is the same when it is made again from the data."""
    results = page.rounded(results)
    (ROOT / "docs/benchmarks.md").write_text(page.write(results, GOAL_ROWS, versions()))
    if "growth" in results:
        (ROOT / "docs/growth.svg").write_text(growth.plot(results["growth"]["rows"]))
    told = lambda stage: {"stage": stage} | {key: results[stage][key] for key in MEASURED}
    rows = [one | told(stage) for stage in page.STAGES if stage in results for one in results[stage]["rows"]]
    published.write_text("[\n" + ",\n".join(json.dumps(one) for one in rows) + "\n]\n")


def read_back(published):
    """The stages as they were written down."""
    results = {}
    for one in json.loads(published.read_text()):
        stage = results.setdefault(one["stage"], {key: one[key] for key in MEASURED} | {"rows": []})
        stage["rows"].append({key: value for key, value in one.items() if key not in ("stage", *MEASURED)})
    return results


def versions():
    lines = (HERE / "requirements.txt").read_text().splitlines()
    pinned = dict(line.removesuffix(" \\").split("==") for line in lines if "==" in line)
    return {"DuckDB": pinned["duckdb"], "chDB": pinned["chdb-core"], "Polars": pinned["polars"], "DataFusion": pinned["datafusion"]}


if __name__ == "__main__":
    main()
