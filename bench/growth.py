"""The growth stage of the bench: time and memory against reports, metrics, groups and stores, and the plot of it. What grows in a
straight line or better stays at or below the dashed line through its first point."""

import asyncio
import contextlib
import gzip
import math
import statistics
import tempfile
import threading
import time

import queries
from served import send_hosts, served

STORES = [1, 100, 1_000]
METRICS = [100, 1_000, 10_000]
# Attributes by which the reports of a window are grouped, few groups first.
GROUPS = ["application", "app.version", "hostname", "fingerprint", "user.id"]
PERIOD, WINDOWS = 10, 3
HOSTS = 100

# What grows, what it is called along the plot, and what a point of its lines is.
PANELS = {
    "reports": ("reports in files", "six questions of Explore, warm", "opening the store"),
    "metrics": ("metrics over 20,000 reports", "CPU of a window", None),
    "groups": ("groups of 1.2 M reports", "CPU of one metric", None),
    "stores": ("stores with 100 series each", "window's end until all have it", "CPU of a window"),
}


def point(of, at, line, unit, runs, memory=None):
    """A row of the page, told apart by what it is a point of."""
    ours = statistics.median(runs)
    row = {"name": f"{line}: {at:,} {PANELS[of][0]}", "ours": ours, "peer": None, "unit": unit, "ratio": None, "goal": None, "reach": None}
    row |= {"runs": len(runs), "spread": {"ours": [min(runs), max(runs)]}, "growth": {"of": of, "at": at, "line": line}}
    return row | ({"note": f"{memory / 2**20:,.0f} MiB of memory then"} if memory else {})


def reports(bench, ask_shape, counts):
    """Six shapes of Explore over stores of growing size, and opening these."""
    _, questions, opening = PANELS["reports"]
    for count in counts:
        folder, _ = bench.make("day", count, queries.DAY)
        opened, asked = [], []
        for _ in range(3):
            with bench.ours("stored", folder) as worker:
                opened.append(worker.opened["opened"])
                # The first time reads files.
                [ask_shape(worker, "ours", shape) for shape in queries.SHAPES]
                told = [ask_shape(worker, "ours", shape) for shape in queries.SHAPES]
                asked.append(sum(one["wall"] for one in told))
                memory = told[-1]["resident"]
        yield point("reports", count, questions, "s", asked, memory)
        yield point("reports", count, opening, "s", opened)


def metrics(bench, rows):
    """Saved metrics of growing number over one small window."""
    with bench.live(rows) as ours:
        for count in METRICS:
            runs, last = bench.seal(ours, queries.metrics(count))
            yield point("metrics", count, PANELS["metrics"][1], "s", [one["cpu"] for one in runs], last["resident"])


def groups(bench, ask_metrics):
    """Reports by attributes with more and more values."""
    with bench.live(bench.window_rows()) as ours:
        for attribute in GROUPS:
            metric = queries.query([attribute], [], [queries.REPORTS])
            told = [ask_metrics(ours, [metric]) for _ in range(5)]
            yield point("groups", told[0]["answers"][0]["groups"], PANELS["groups"][1], "s", [one["cpu"] for one in told], told[-1]["resident"])


def stores(program, scratch):
    """Push stores of one project that get the same series, each over HTTP."""
    _, lag, cpu = PANELS["stores"]
    for count in STORES:
        with tempfile.TemporaryDirectory(dir=scratch) as folder, sink() as (port, arrivals), served(program, f"{folder}/stores") as server:
            path = server.project("game")
            server.api("PUT", "/projects/game/metric-sets/s/metrics/m", {"query": {"group": ["host"], "fold": {"_tx": [["unique"]]}}})
            for n in range(count):
                store = {"adapter": "influxdb", "period": PERIOD, "sets": ["s"], "url": f"http://127.0.0.1:{port}/write", "db": f"d{n}"}
                server.api("PUT", f"/projects/game/metric-stores/s{n}", store)
            lags, spent = [], []
            while len(lags) < WINDOWS:
                end = (time.time() // PERIOD + 2) * PERIOD
                time.sleep(end - PERIOD + 1 - time.time())
                before = cpu_seconds(server.process.pid)
                send_hosts(server.address, path, HOSTS)
                time.sleep(end + PERIOD - 1 - time.time())
                got = {who: at - end for at, who, points in list(arrivals) if end <= at < end + PERIOD and points >= HOSTS}
                if len(got) < count:
                    raise SystemExit(f"{count - len(got)} of {count} stores had no window within {PERIOD - 1} s")
                lags.append(max(got.values()))
                spent.append(cpu_seconds(server.process.pid) - before)
            yield point("stores", count, lag, "s", lags, server.resident() * 2**20)
            yield point("stores", count, cpu, "s", spent)


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


@contextlib.contextmanager
def sink():
    """Takes writes for InfluxDB; tells when each came, for which database, of how many lines."""
    arrivals, ports, loop, ready = [], [], asyncio.new_event_loop(), threading.Event()

    async def take(reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = next(int(line.split(":")[1]) for line in head.lower().split("\r\n") if line.startswith("content-length"))
                body = await reader.readexactly(length)
                lines = gzip.decompress(body) if "content-encoding: gzip" in head.lower() else body
                arrivals.append((time.time(), head.split(" ")[1], lines.count(b"\n")))
                writer.write(b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n")

    async def serve():
        server = await asyncio.start_server(take, "127.0.0.1", 0)
        ports.append(server.sockets[0].getsockname()[1])
        ready.set()
        await server.serve_forever()

    def run():
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(serve())

    threading.Thread(target=run, daemon=True).start()
    ready.wait()
    yield ports[0], arrivals
    loop.call_soon_threadsafe(lambda: [task.cancel() for task in asyncio.all_tasks(loop)])


# The plot: a panel for each thing that grows, both axes logarithmic.
WIDE, HIGH, LEFT, TOP, GAP = 380, 230, 64, 36, 24
COLOURS = ["#2563eb", "#b45309"]


def plot(rows):
    """An SVG of the rows of this stage."""
    panels = []
    for place, (of, (axis, *lines)) in enumerate(PANELS.items()):
        drawn = [[(row["growth"]["at"], row["ours"]) for row in rows if row["growth"]["of"] == of and row["growth"]["line"] == line] for line in lines]
        left, top = (place % 2) * (WIDE + GAP), (place // 2) * (HIGH + GAP)
        panels.append(f'<g transform="translate({left},{top})">{panel(axis, lines, drawn)}</g>')
    width, height = 2 * WIDE + GAP, 2 * HIGH + GAP
    style = "text{font:11px system-ui,sans-serif;fill:#334155}.t{font-weight:600}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="Time against reports, metrics, groups and stores">'
        f'<style>{style}</style><rect width="{width}" height="{height}" fill="#fff"/>{"".join(panels)}</svg>\n'
    )


def panel(axis, lines, drawn):
    points = [point for line in drawn for point in line]
    if not points:
        return ""
    (x_low, x_high), (y_low, y_high) = (bounds([one[part] for one in points]) for part in (0, 1))
    wide, high = WIDE - LEFT - 12, HIGH - TOP - 44
    x = lambda value: LEFT + (math.log10(value) - x_low) / (x_high - x_low) * wide
    y = lambda value: TOP + high - (math.log10(value) - y_low) / (y_high - y_low) * high
    out = [f'<rect x="{LEFT}" y="{TOP}" width="{wide}" height="{high}" fill="none" stroke="#cbd5e1"/>']
    for power in range(x_low, x_high + 1):
        out.append(f'<text x="{x(10**power):.0f}" y="{TOP + high + 16}" text-anchor="middle">{count(10**power)}</text>')
    for power in range(y_low, y_high + 1):
        out.append(f'<text x="{LEFT - 6}" y="{y(10.0**power) + 4:.0f}" text-anchor="end">{seconds(10.0**power)}</text>')
        out.append(f'<line x1="{LEFT}" x2="{LEFT + wide}" y1="{y(10.0**power):.0f}" y2="{y(10.0**power):.0f}" stroke="#e2e8f0"/>')
    out.append(f'<text x="{LEFT + wide / 2}" y="{TOP + high + 34}" text-anchor="middle">{axis}</text>')
    for place, (line, ours) in enumerate(zip(lines, drawn)):
        if not ours:
            continue
        colour = COLOURS[place]
        out.append(f'<text class="t" x="{LEFT}" y="{12 + 14 * place}" style="fill:{colour}">{line}</text>')
        (first_at, first), last_at = ours[0], ours[-1][0]
        # In proportion from the first point on, as far as the panel goes.
        end = min(last_at, first_at * 10**y_high / first)
        out.append(f'<line x1="{x(first_at):.1f}" y1="{y(first):.1f}" x2="{x(end):.1f}" y2="{y(first * end / first_at):.1f}" stroke="{colour}" stroke-dasharray="3 4" opacity=".6"/>')
        out.append(f'<polyline points="{" ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in ours)}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out += [f'<circle cx="{x(at):.1f}" cy="{y(value):.1f}" r="3" fill="{colour}"/>' for at, value in ours]
    return "".join(out)


def bounds(values):
    """Whole powers of ten around the values."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)


def count(value):
    return f"{value // 10**6} M" if value >= 10**6 else f"{value // 1_000} k" if value >= 1_000 else str(value)


def seconds(value):
    return f"{value:g} s" if value >= 1 else f"{value * 1e3:g} ms"
