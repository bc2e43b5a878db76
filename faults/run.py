"""Breaks the built server for real and counts what is left: kills, failing system calls, power loss, a full disk, a store that is away.

Reports are submitted all the time with ids of their own, and a store takes every window over HTTP. After each fault the server is
started again on the same folder, and three accounts have to agree:

- the senders': every report that was answered 200 before the fault is there, none is there twice, and none that nobody sent;
- the store's: each second has one value, a body sent again is the same bytes, and the sum is the number of reports;
- the server's own: `crashmeter audit --offline` finds everything balanced.

It needs Linux, Python 3.11 and, for three of the rigs, strace or root. It is no benchmark: what it prints is how often it tried.
"""

import argparse
import collections
import ctypes
import fcntl
import http.client
import http.server
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

# <linux/ext4.h>: EXT4_IOC_SHUTDOWN is _IOR('X', 125, __u32); with NOLOGFLUSH nothing that is not on the disk gets there.
EXT4_IOC_SHUTDOWN = 0x8004587D
EXT4_GOING_FLAGS_NOLOGFLUSH = 2
SENDERS = 8
# What every fault of a system call is tried on.
CALLS = ["write", "pwrite64", "fdatasync", "fsync", "rename", "ftruncate", "unlink"]


class Broken(Exception):
    """An account that does not agree."""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ask(port, method, path, body=None, token=None, timeout=20):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        reply = connection.getresponse()
        return reply.status, reply.read()
    finally:
        connection.close()


class Store:
    """Takes InfluxDB lines and remembers them: the last value of each second, and every body by its times."""

    def __init__(self):
        self.values, self.bodies, self.down = {}, collections.defaultdict(set), False
        store = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if not store.down:
                    store.take(body)
                self.send_response(503 if store.down else 204)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        # A connection that the kill of its server has reset is no news.
        self.server.handle_error = lambda *_: None
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def take(self, body):
        for line in body.decode().splitlines():
            series, fields, when = line.rsplit(" ", 2)
            if series.startswith("crashmeter.faults.all.reports"):
                self.values[int(when)] = float(fields.split("=")[1].rstrip("i"))
        times = tuple(sorted({line.rsplit(" ", 1)[1] for line in body.decode().splitlines()}))
        self.bodies[times].add(body)

    def check(self):
        changed = [times for times, bodies in self.bodies.items() if len(bodies) > 1]
        if changed:
            raise Broken(f"{len(changed)} windows were sent again with other bytes: {changed[:3]}")
        return sum(self.values.values())


class Senders:
    """Submit reports under ids of their own for as long as they are let. One that got no answer is sent again under its id."""

    def __init__(self, seed):
        self.lock, self.answered, self.unknown, self.refused = threading.Lock(), set(), set(), collections.Counter()
        self.target, self.running, self.next, self.again = None, True, 0, []
        self.random, self.padding = random.Random(seed), 0
        self.threads = [threading.Thread(target=self.work, daemon=True) for _ in range(SENDERS)]
        for thread in self.threads:
            thread.start()

    def work(self):
        connection, to = None, None
        while self.running:
            target = self.target
            if target is None:
                connection = None
                time.sleep(0.002)
                continue
            with self.lock:
                key = self.again.pop() if self.again and self.random.random() < 0.5 else None
                if key is None:
                    self.next += 1
                    key = self.next
            port, path = target
            try:
                if connection is None or to != port:
                    connection, to = http.client.HTTPConnection("127.0.0.1", port, timeout=10), port
                body = {"uuid": f"{key:032x}", "attributes": {"key": f"r{key}", "pad": os.urandom(self.padding // 2).hex()}}
                connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
                reply = connection.getresponse()
                reply.read()
                with self.lock:
                    if reply.status == 200:
                        self.answered.add(key)
                        self.unknown.discard(key)
                    else:
                        self.refused[reply.status] += 1
                        self.unknown.add(key)
                        self.again.append(key)
                if reply.status != 200:
                    time.sleep(0.05)
            except (OSError, http.client.HTTPException):
                connection = None
                with self.lock:
                    self.unknown.add(key)
                    self.again.append(key)
                time.sleep(0.005)

    def pause(self):
        """Begins no more; what is under way ends as it will."""
        self.target = None

    def known(self):
        with self.lock:
            return set(self.answered)


class Rig:
    """A server on a folder, its senders and its store."""

    def __init__(self, program, folder, seed):
        self.program, self.folder, self.data = program, folder, folder / "data"
        self.port, self.process, self.wrapped = free_port(), None, False
        self.log = open(folder / "server.log", "ab") if folder.exists() else None
        self.store, self.senders, self.path, self.token = Store(), Senders(seed), None, None

    def start(self, wrap=(), wait=True):
        command = [*wrap, str(self.program), "serve", "--data", str(self.data), "--listen", f"127.0.0.1:{self.port}"]
        command += ["--allow-egress", "127.0.0.0/8", "--disk-reserve", "0"]
        self.log = self.log or open(self.folder / "server.log", "ab")
        self.wrapped = bool(wrap)
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log, start_new_session=True)
        if wait and not self.wait_until_ready():
            raise Broken(f"the server does not start again; see {self.folder}/server.log")

    def wait_until_ready(self, seconds=30):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                if ask(self.port, "GET", "/readyz")[0] == 200:
                    return True
            except OSError:
                pass
            if self.process.poll() is not None:
                return False
            time.sleep(0.01)
        return False

    def set_up(self, stores=()):
        """A project, a metric, a store, and others by name: once, on a server that works."""
        self.start()
        self.token = (self.data / "admin.token").read_text().strip()
        made = json.loads(ask(self.port, "POST", "/api/v1/projects", {"name": "faults"}, self.token)[1])
        self.path = "/" + made["submission_url"].split("/", 3)[3]
        base = "/api/v1/projects/faults"
        query = {"query": {"fold": {"_tx": [["unique"]]}}}
        for path, body in [
            ("metric-sets/all/metrics/reports", query),
            *(
                (f"metric-stores/{name}", {"adapter": "influxdb", "period": 1, "sets": ["all"], "url": f"http://127.0.0.1:{store.port}", "db": "x"})
                for name, store in [("sink", self.store), *stores]
            ),
        ]:
            status, reply = ask(self.port, "PUT", f"{base}/{path}", body, self.token)
            if status != 200:
                raise Broken(f"set-up: {status} {reply}")
        # What comes before the store's first window is in none of its windows.
        first = json.loads(reply)["first_window_start"]
        while time.time() < first + 0.1:
            time.sleep(0.01)

    def load(self):
        self.senders.target = (self.port, self.path)

    def kill(self):
        if self.process and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        if self.process:
            self.process.wait()
        if self.wrapped:
            # It is strace that was waited for.
            with open(self.data / "lock", "a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)

    def query(self, body):
        status, reply = ask(self.port, "POST", "/api/v1/projects/faults/query", body, self.token, 60)
        if status != 200:
            raise Broken(f"query: {status} {reply}")
        return json.loads(reply)

    def reports(self):
        """How often each report is there, by its key."""
        found, offset = collections.Counter(), 0
        while True:
            body = {"query": {"group": ["key"], "fold": {"_tx": [["unique"]]}}, "from": 0, "to": 4_000_000_000, "offset": offset}
            answer = self.query(body | {"order": {"by": "group", "direction": "ascending"}})
            found.update({int(row[0][1:]): int(row[1]) for row in answer["rows"]})
            if not answer["truncated"]:
                return found
            offset += len(answer["rows"])

    def check_reports(self, answered):
        """The senders' account, against a running server."""
        found = self.reports()
        lost, twice = answered - found.keys(), [key for key, count in found.items() if count != 1]
        strange = found.keys() - (self.senders.known() | self.senders.unknown | set(range(1, self.senders.next + 1)))
        if lost or twice or strange:
            raise Broken(f"{len(lost)} reports lost {sorted(lost)[:5]}, {len(twice)} twice {twice[:5]}, {len(strange)} that nobody sent")
        return len(found)

    def check_audit(self):
        """The server's own account, of the folder as it lies."""
        audit = subprocess.run([self.program, "audit", "--offline", "--data", self.data], capture_output=True, text=True)
        if audit.returncode != 0:
            raise Broken(f"audit: {audit.stdout}{audit.stderr}")

    def check_store(self, reports):
        """The store's account, once it has every window."""
        until = time.monotonic() + 60
        while self.store.check() != reports:
            if time.monotonic() > until:
                raise Broken(f"the store has {self.store.check()} reports in all its windows, and there are {reports}")
            time.sleep(0.1)
        self.store.check()

    def end(self):
        self.senders.running = False
        self.kill()
        self.store.server.shutdown()


def kills(args, folder):
    """The process is killed in the middle of submissions, again and again."""
    rig = Rig(args.program, folder, args.seed)
    try:
        rig.set_up()
        for cycle in range(args.cycles):
            rig.load()
            time.sleep(rig.senders.random.uniform(0.01, 0.5))
            rig.kill()
            if cycle % 10 == 9:
                rig.check_audit()
            rig.start()
            if cycle % 50 == 49:
                # The pages of a list hold together only while nothing new comes.
                rig.senders.pause()
                time.sleep(0.5)
                rig.check_reports(rig.senders.known())
        rig.senders.pause()
        time.sleep(2.5)
        there = rig.check_reports(rig.senders.known())
        rig.check_store(there)
        rig.kill()
        rig.check_audit()
        return f"{args.cycles} kills in {there} reports, {len(rig.store.values)} windows"
    finally:
        rig.end()


def calls(args, folder):
    """Each call that changes the disk fails or kills the process, at its n-th time in a thread."""
    if not shutil.which("strace"):
        return "not done: strace is not installed"
    seed = folder / "seed"
    seed.mkdir()
    first = Rig(args.program, seed, args.seed)
    first.set_up()
    first.load()
    time.sleep(1.5)
    first.senders.pause()
    time.sleep(1.2)
    first.kill()
    first.senders.running = False
    done = collections.Counter()
    faults = ["signal=SIGKILL", "error=EIO", "error=ENOSPC"]
    plan = [(call, fault, n) for n in range(1, 40) for call in CALLS for fault in faults]
    random.Random(args.seed).shuffle(plan)
    for number, (call, fault, n) in enumerate(plan[: args.cycles]):
        at = folder / f"run-{number}"
        shutil.copytree(seed, at)
        rig = Rig(args.program, at, args.seed + number)
        rig.path, rig.token, rig.port, rig.store = first.path, first.token, first.port, first.store
        rig.senders.next = first.senders.next + 1_000_000 * (number + 1)
        try:
            rig.start(["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:{fault}:when={n}"], wait=False)
            if rig.wait_until_ready():
                rig.load()
                until = time.monotonic() + 1.5
                while time.monotonic() < until and rig.process.poll() is None:
                    time.sleep(0.02)
            died = rig.process.poll() is not None
            rig.senders.pause()
            rig.kill()
            answered = rig.senders.known()
            rig.start()
            found = rig.reports()
            lost = answered - found.keys()
            if lost or any(count != 1 for count in found.values()):
                raise Broken(f"{call} {fault} at {n}: {len(lost)} reports lost; kept in {at}")
            rig.kill()
            rig.check_audit()
            done[f"{fault.split('=')[1]}: {'the process ended' if died else 'it went on'}"] += 1
        except Broken as broken:
            raise Broken(f"{call} {fault} at {n}: {broken}") from None
        finally:
            rig.senders.running = False
            rig.kill()
        shutil.rmtree(at)
    first.store.server.shutdown()
    return f"{sum(done.values())} faults of {', '.join(CALLS)}: " + ", ".join(f"{count} {what}" for what, count in sorted(done.items()))


def mount(*words):
    subprocess.run(["mount", *words], check=True)


def power(args, folder):
    """The file system stops as a machine without power does: what was not on the disk is gone."""
    if os.geteuid() != 0:
        return "not done: it needs root, for a file system of its own"
    image, at = folder / "image", folder / "disk"
    at.mkdir()
    with open(image, "wb") as file:
        file.truncate(512 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    try:
        mount("-o", "loop", str(image), str(at))
    except subprocess.CalledProcessError:
        return "not done: no loop device can be mounted here"
    rig = Rig(args.program, at, args.seed)
    rig.log = open(folder / "server.log", "ab")
    lost_power = 0
    try:
        rig.set_up()
        for cycle in range(args.cycles):
            rig.load()
            time.sleep(rig.senders.random.uniform(0.05, 0.6))
            # Answers that come while the file system is going down prove nothing.
            answered = rig.senders.known()
            disk = os.open(at, os.O_RDONLY)
            try:
                fcntl.ioctl(disk, EXT4_IOC_SHUTDOWN, ctypes.c_uint32(EXT4_GOING_FLAGS_NOLOGFLUSH))
            finally:
                os.close(disk)
            rig.senders.pause()
            rig.kill()
            subprocess.run(["umount", at], check=True)
            mount("-o", "loop", str(image), str(at))
            # Answered after the last moment that was looked at, and perhaps lost with the disk: nobody knows.
            with rig.senders.lock:
                rig.senders.unknown |= rig.senders.answered - answered
                rig.senders.answered &= answered
            rig.check_audit()
            rig.start()
            rig.check_reports(answered)
            lost_power += 1
        rig.senders.pause()
        time.sleep(2.5)
        there = rig.check_reports(rig.senders.known())
        rig.kill()
        rig.check_audit()
        return f"{lost_power} losses of power in {there} reports"
    finally:
        rig.end()
        subprocess.run(["umount", "-l", at], check=False)


def full(args, folder):
    """The disk is full, in earnest: reports are refused, nothing breaks, and with room again all goes on."""
    if os.geteuid() != 0:
        return "not done: it needs root, for a file system of its own"
    at = folder / "disk"
    at.mkdir()
    mount("-t", "tmpfs", "-o", "size=24M", "crashmeter-faults", str(at))
    rig = Rig(args.program, at, args.seed)
    rig.log = open(folder / "server.log", "ab")
    rounds = max(1, args.cycles // 20)
    try:
        rig.set_up()
        rig.senders.padding = 20_000
        for number in range(rounds):
            rig.load()
            until, before = time.monotonic() + 60, rig.senders.refused[507]
            while rig.senders.refused[507] < before + 50:
                if time.monotonic() > until or rig.process.poll() is not None:
                    raise Broken(f"no 507 came: {rig.senders.refused}, process {rig.process.poll()}")
                time.sleep(0.02)
            if ask(rig.port, "GET", "/api/v1/projects", token=rig.token)[0] != 200:
                raise Broken("the API does not answer while the disk is full")
            if number % 2 == 1:
                rig.kill()
            mount("-o", f"remount,size={48 + 24 * number}M", str(at))
            if number % 2 == 1:
                rig.start()
            until, before = time.monotonic() + 20, len(rig.senders.known())
            while len(rig.senders.known()) < before + 100:
                if time.monotonic() > until:
                    raise Broken("no report is taken although there is room again")
                time.sleep(0.02)
        rig.senders.pause()
        time.sleep(2.5)
        there = rig.check_reports(rig.senders.known())
        rig.kill()
        rig.check_audit()
        return f"{rounds} full disks, {rig.senders.refused[507]} refusals, {there} reports"
    finally:
        rig.end()
        subprocess.run(["umount", "-l", at], check=False)


def outage(args, folder):
    """One store is down for as many seconds as there are cycles, another is not: in the end both have the same."""
    rig, other = Rig(args.program, folder, args.seed), Store()
    try:
        rig.set_up([("other", other)])
        rig.store.down = True
        rig.load()
        time.sleep(args.cycles)
        rig.senders.pause()
        time.sleep(2.5)
        there = rig.check_reports(rig.senders.known())
        waiting, began = len(other.values) - len(rig.store.values), time.monotonic()
        rig.store.down = False
        status, reply = ask(rig.port, "POST", "/api/v1/projects/faults/metric-stores/sink/send-now", None, rig.token)
        if status not in (200, 202, 204):
            raise Broken(f"send now: {status} {reply}")
        rig.check_store(there)
        took = time.monotonic() - began
        if any(rig.store.values.get(second) != value for second, value in other.values.items() if second <= max(rig.store.values)):
            raise Broken("the two stores differ")
        rig.kill()
        rig.check_audit()
        return f"{args.cycles} s without a store, {waiting} windows made up for in {took:.1f} s ({waiting / took:.0f} a second), {there} reports"
    finally:
        other.server.shutdown()
        rig.end()


RIGS = {"kills": kills, "calls": calls, "power": power, "full": full, "outage": outage}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", type=pathlib.Path, required=True)
    parser.add_argument("--cycles", type=int, default=20)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("rigs", nargs="*", choices=[*RIGS, []], default=list(RIGS))
    args = parser.parse_args()
    args.program = args.program.resolve()
    bad = False
    print(f"seed {args.seed}")
    for name in args.rigs or RIGS:
        folder = pathlib.Path(tempfile.mkdtemp(prefix=f"crashmeter-{name}-"))
        began = time.monotonic()
        try:
            said = RIGS[name](args, folder)
            shutil.rmtree(folder, ignore_errors=True)
        except Broken as broken:
            bad, said = True, f"BROKEN: {broken}; kept in {folder}"
        print(f"{name}: {said} ({time.monotonic() - began:.0f} s)", flush=True)
    sys.exit(bad)


if __name__ == "__main__":
    main()
