"""The rows of the bench that need a running server: intake over HTTP beside a server that only reads, waits under a paced load beside the
disk, seals of large windows, a start with ten million reports and three days of waiting windows, memory. `run.py` writes them down."""

import contextlib
import json
import os
import pathlib
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "faults"))

from rig import ask, free_port  # noqa: E402

CONNECTIONS = 64
SECONDS = 10
# 2.5 KB, each under an id of its own, as SDKs send them one by one.
SUBMIT = """
local n, first = 0, math.floor(FIRST)
local head = '{"timestamp":1764000000,"lang":"nodejs","agent":"bench","mainThread":"main","threads":{"main":{"fault":true,"stack":['
local frames = {}
for at = 1, 18 do
  frames[at] = string.format('{"funcName":"module.function%d","library":"/srv/game/bin/file%d.js","line":%d,"column":7}', at, at, at)
end
head = head .. table.concat(frames, ",") .. ']}},"classifiers":["TypeError"],"annotations":{"Environment Variables":{"LANG":"C.UTF-8"}},'
local tail = '"uuid":"%08x-0000-4000-8000-%012x","attributes":{"application":"shooter","application.version":"1.2.%d","guid":"g%d",' ..
  '"error.type":"Exception","error.message":"no such level","hostname":"pc-%d","process.age":%d,"uname.sysname":"Linux","pad":"' ..
  string.rep("x", 600) .. '"}}'
request = function()
  n = n + 1
  local body = head .. string.format(tail, first, n, n % 9, n % 5000, n % 700, n % 9999)
  return wrk.format("POST", nil, {["Content-Type"] = "application/json"}, body)
end
done = function(summary)
  local errors = summary.errors
  io.write(string.format("answers %d %d %d", summary.requests, summary.duration, errors.status + errors.connect + errors.read + errors.write))
end
"""


class Served:
    """A released server on a folder of its own."""

    def __init__(self, program, folder):
        self.program, self.data = program, pathlib.Path(folder)
        self.address = ("127.0.0.1", free_port())
        self.log = open(self.data.parent / f"{self.data.name}.log", "ab")

    def start(self, seconds=120):
        """Returns how long it took until it was ready."""
        host, port = self.address
        began = time.monotonic()
        command = [self.program, "serve", "--data", self.data, "--listen", f"{host}:{port}", "--allow-egress", "127.0.0.0/8", "--disk-reserve", "0"]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log)
        while True:
            with contextlib.suppress(OSError):
                if ask(self.address, "GET", "/readyz")[0] == 200:
                    return time.monotonic() - began
            if self.process.poll() is not None or time.monotonic() > began + seconds:
                sys.exit(f"the server does not start: {self.log.name}")
            time.sleep(0.002)

    def token(self):
        return (self.data / "admin.token").read_text().strip()

    def api(self, method, path, body=None):
        status, reply = ask(self.address, method, f"/api/v1{path}", body, self.token(), 60)
        if status >= 300:
            sys.exit(f"{method} {path}: {status} {reply}")
        return json.loads(reply) if reply else None

    def project(self, name):
        return "/" + self.api("POST", "/projects", {"name": name})["submission_url"].split("/", 3)[3]

    def figure(self, name):
        page = ask(self.address, "GET", "/metrics")[1].decode()
        return float(next(line.split()[1] for line in page.splitlines() if line.startswith(f"{name} ")))

    def resident(self):
        with open(f"/proc/{self.process.pid}/status") as lines:
            return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024

    def stop(self):
        self.process.terminate()
        self.process.wait()


@contextlib.contextmanager
def served(program, folder):
    server = Served(program, folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def wrk(url, scratch, run):
    """Microseconds a report, all connections together, and how many answers were errors."""
    script = pathlib.Path(scratch) / "submit.lua"
    script.write_text(SUBMIT.replace("FIRST", str(run)))
    printed = subprocess.check_output(["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", "-s", script, url], text=True)
    answers, micros, errors = map(int, printed.rsplit("answers ", 1)[1].split())
    return micros / answers, errors


def intake(program, tool, scratch, runs):
    """Reports a second over HTTP, and what a person waits at 70 % of that."""
    ours, theirs = [], []
    discard = subprocess.Popen([tool, "discard"], stdout=subprocess.PIPE, text=True)
    try:
        port = int(discard.stdout.readline())
        with served(program, f"{scratch}/intake") as server:
            idle = server.resident()
            path = server.project("game")
            for run in range(runs):
                cost, errors = wrk("http://{}:{}".format(*server.address) + path, scratch, run + 1)
                if errors:
                    sys.exit(f"{errors} of the reports were refused")
                ours.append(cost)
                theirs.append(wrk(f"http://127.0.0.1:{port}{path}", scratch, run + 1)[0])
            full = server.resident()
            kept = server.api("POST", "/projects/game/query", {"query": {"fold": {"_tx": [["unique"]]}}, "from": 0, "to": 4_000_000_000})
            rate = 0.7e6 / statistics.median(ours)
            host, port = server.address
            all_before, stolen_before = processor_time()
            printed = subprocess.check_output([tool, "load", f"{host}:{port}", path, str(rate), str(2 * SECONDS)], text=True)
            all_after, stolen_after = processor_time()
            stolen = (stolen_after - stolen_before) / (all_after - all_before)
        waits = sorted(json.loads(printed))
    finally:
        discard.kill()
        discard.wait()
    share = lambda many, part: many[int(len(many) * part)]
    syncs = sorted(sync_times(scratch))
    note = (
        f"{1e6 / statistics.median(ours):,.0f} reports a second beside {1e6 / statistics.median(theirs):,.0f}, the load generator on the "
        f"same cores; {kept['matched']:,} reports in all, each 200 only after fdatasync"
    )
    what = f"intake over HTTP, {CONNECTIONS} connections, a report of 2.5 KB each"
    rows = [{"what": what, "unit": "us", "runs": {"ours": ours, "reading and discarding": theirs}, "goal": 1 / 0.5, "reach": 1 / 0.7, "note": note}]
    note = (
        f"{len(waits):,} reports, each timed from when it was due; median {share(waits, 0.5) / 1e3:.1f} ms, greatest {waits[-1] / 1e3:.0f} ms; "
        f"fdatasync of 4 KiB here: median {share(syncs, 0.5):.2f} ms, p99 {share(syncs, 0.99):.2f} ms; "
        f"{stolen:.1%} of the processors went to other guests of the host"
    )
    what = f"p99 of the wait for an answer at 70 % of that ({rate:,.0f} a second), open loop"
    rows.append({"what": what, "unit": "ms", "runs": {"ours": [share(waits, 0.99) / 1e3]}, "goal": 50, "reach": 30, "note": note})
    rows.append({"what": "memory of a new server that does nothing", "unit": "MiB", "runs": {"ours": [idle]}, "goal": None, "reach": None})
    note = f"{kept['matched']:,} reports in its columns and log"
    rows.append({"what": "memory after this load", "unit": "MiB", "runs": {"ours": [full]}, "goal": None, "reach": None, "note": note})
    return rows


def processor_time():
    """Ticks of all processors since the machine began, and those of them that its host gave to others."""
    with open("/proc/stat") as lines:
        ticks = [int(one) for one in next(lines).split()[1:9]]
    return sum(ticks), ticks[7]


def sync_times(scratch, times=500):
    """Milliseconds of writing 4 KiB and fdatasync."""
    with tempfile.TemporaryFile(dir=scratch) as file:
        for _ in range(times):
            began = time.monotonic()
            file.write(b"x" * 4096)
            file.flush()
            os.fdatasync(file.fileno())
            yield (time.monotonic() - began) * 1e3


def sealing(program, scratch, windows):
    """From the end of a window until it is sealed, with a million points and with ten thousand."""
    rows = []
    folds = {"_tx": [["unique"]], "a": [["sum"], ["min"], ["max"]], "b": [["sum"], ["min"], ["max"]], "c": [["sum"], ["min"], ["max"]]}
    for metrics, goal, reach in [(1, 0.3, None), (100, 2, None)]:
        with served(program, f"{scratch}/sealing-{metrics}") as server:
            path = server.project("game")
            for n in range(metrics):
                query = {"group": ["host"], "fold": folds, "filter": [{"a": [["at-least", str(-n)]]}]}
                server.api("PUT", f"/projects/game/metric-sets/s/metrics/m{n}", {"query": query})
            server.api("PUT", "/projects/game/metric-stores/prom", {"adapter": "prometheus", "period": 10, "sets": ["s"]})
            lags, points = [], 0
            sealed = server.figure("crashmeter_windows_sealed_total")
            while len(lags) < windows:
                send_hosts(server.address, path, 1_000)
                while server.figure("crashmeter_windows_sealed_total") == sealed:
                    time.sleep(0.05)
                sealed = server.figure("crashmeter_windows_sealed_total")
                page = server.api("GET", "/projects/game/metric-stores/prom/status")
                values = server.api("GET", f"/projects/game/metric-sets/s/metrics/m0/values?period=10")
                newest = values["windows"][-1]
                # Only windows in which every host has sent are as large as they are to be.
                if newest["matched"] and newest["series"] >= 1_000 and page["newest_sealed_window"] == newest["start"]:
                    lags.append(server.figure("crashmeter_seal_lag_seconds"))
                    points = metrics * 10 * newest["series"]
        what = f"seal of {points:,} points: from the end of the window until it is sealed, the longest of {windows}"
        note = f"{metrics} metrics of ten aggregates over 1,000 groups; median {statistics.median(lags) * 1e3:.0f} ms"
        rows.append({"what": what, "unit": "s", "runs": {"ours": [max(lags)]}, "goal": goal, "reach": reach, "note": note})
    return rows


def send_hosts(address, path, hosts):
    """A report of each host, over one connection that does not wait for answers one by one."""
    with socket.create_connection(address, 20) as stream:
        for first in range(0, hosts, 50):
            for host in range(first, first + 50):
                body = json.dumps({"attributes": {"host": f"h{host}", "a": host, "b": host / 7, "c": 1}}).encode()
                head = f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
                stream.sendall(head.encode() + body)
            text, answers = b"", 0
            while answers < 50:
                text += stream.recv(65536)
                answers = text.count(b'"response":"ok"')


def ready(program, tool, scratch, day):
    """A start on ten million reports, their ids, and ten stores that have waited for 72 hours; then idle memory."""
    data = pathlib.Path(scratch) / "ready"
    data.mkdir()
    shutil.copytree(day, data / "reports")
    subprocess.check_call([tool, "backlog", data])
    took, idle = [], []
    for _ in range(5):
        server = Served(program, data)
        took.append(server.start())
        time.sleep(5)
        idle.append(server.resident())
        server.stop()
    waiting = "10 stores with 4,320 windows each waiting"
    peers = footprints(scratch)
    return [
        {"what": f"ready with the reports of the day and {waiting}", "unit": "s", "runs": {"ours": took} | peers["ready"], "goal": 1, "reach": 0.3, "absolute": True,
         "note": "peers start on nothing at all"},
        {"what": "memory five seconds later, the stores away", "unit": "MiB", "runs": {"ours": idle} | peers["idle"], "goal": 96, "reach": 48, "absolute": True,
         "note": "peers hold nothing at all"},
    ]


def footprints(scratch):
    """How fast the servers people know are ready on an empty folder, and what memory they then have."""
    ready, idle = {}, {}
    for name, command, path in [
        ("prometheus", ["prometheus", "--config.file={folder}/none.yml", "--storage.tsdb.path={folder}/data", "--web.listen-address=127.0.0.1:{port}"], "/-/ready"),
        ("victoria-metrics", ["victoria-metrics", "-storageDataPath={folder}/data", "-httpListenAddr=127.0.0.1:{port}"], "/health"),
        ("influxdb", ["influxd", "-config", "{folder}/influx.conf"], "/ping"),
    ]:
        if not shutil.which(command[0]):
            continue
        for _ in range(3):
            with tempfile.TemporaryDirectory(dir=scratch) as folder:
                port = free_port()
                (pathlib.Path(folder) / "none.yml").write_text("global: {}\n")
                (pathlib.Path(folder) / "influx.conf").write_text(
                    f'reporting-disabled = true\nbind-address = "127.0.0.1:{free_port()}"\n[meta]\ndir = "{folder}/meta"\n[data]\ndir = "{folder}/data"\n'
                    f'wal-dir = "{folder}/wal"\n[http]\nbind-address = "127.0.0.1:{port}"\n'
                )
                words = [word.format(folder=folder, port=port) for word in command]
                began = time.monotonic()
                process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                try:
                    while True:
                        with contextlib.suppress(OSError):
                            if ask(("127.0.0.1", port), "GET", path)[0] < 300:
                                break
                        if process.poll() is not None or time.monotonic() > began + 60:
                            sys.exit(f"{name} does not start")
                        time.sleep(0.002)
                    ready.setdefault(name, []).append(time.monotonic() - began)
                    time.sleep(5)
                    with open(f"/proc/{process.pid}/status") as lines:
                        resident = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024
                    idle.setdefault(name, []).append(resident)
                finally:
                    process.kill()
                    process.wait()
    return {"ready": ready, "idle": idle}
