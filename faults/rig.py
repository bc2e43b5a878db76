"""A built server with its senders, its store, and the accounts that have to agree. What happens to it is in run.py."""

import collections
import fcntl
import http.client
import http.server
import json
import os
import random
import signal
import socket
import subprocess
import threading
import time

SENDERS = 8


class Broken(Exception):
    """An account that does not agree."""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ask(address, method, path, body=None, token=None, timeout=20):
    connection = http.client.HTTPConnection(*address, timeout=timeout)
    try:
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        reply = connection.getresponse()
        return reply.status, reply.read()
    finally:
        connection.close()


class Store:
    """Takes InfluxDB lines and remembers them: the last value of each second, and every body by its times."""

    def __init__(self, host="127.0.0.1"):
        self.values, self.bodies, self.down, self.host = {}, collections.defaultdict(set), False, host
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

        self.server = http.server.ThreadingHTTPServer((host, 0), Handler)
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
        self.random, self.padding, self.pause_secs = random.Random(seed), 0, 0
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
            address, path = target
            time.sleep(self.pause_secs)
            try:
                if connection is None or to != address:
                    connection, to = http.client.HTTPConnection(*address, timeout=10), address
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

    def __init__(self, program, folder, seed, host="127.0.0.1", store=None, log=None):
        self.program, self.folder, self.data = program, folder, folder / "data"
        self.address, self.process, self.wrapped = (host, free_port()), None, False
        # What the server's command stands behind, and its environment; by default ours.
        self.inside, self.environment = [], None
        self.log = open((log or folder) / "server.log", "ab")
        self.store, self.senders, self.path, self.token = store or Store(), Senders(seed), None, None

    def start(self, wrap=(), wait=True):
        host, port = self.address
        command = [*self.inside, *wrap, str(self.program), "serve", "--data", str(self.data), "--listen", f"{host}:{port}"]
        command += ["--allow-egress", "127.0.0.0/8", "--allow-egress", "10.99.0.0/16", "--disk-reserve", "0"]
        self.wrapped = bool(wrap)
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log, start_new_session=True, env=self.environment)
        if wait and not self.wait_until_ready():
            raise Broken(f"the server does not start again; see {self.folder}/server.log")

    def wait_until_ready(self, seconds=30):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                if ask(self.address, "GET", "/readyz")[0] == 200:
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
        made = json.loads(ask(self.address, "POST", "/api/v1/projects", {"name": "faults"}, self.token)[1])
        self.path = "/" + made["submission_url"].split("/", 3)[3]
        base = "/api/v1/projects/faults"
        query = {"query": {"fold": {"_tx": [["unique"]]}}}
        for path, body in [
            ("metric-sets/all/metrics/reports", query),
            *(
                (f"metric-stores/{name}", {"adapter": "influxdb", "period": 1, "sets": ["all"], "url": f"http://{store.host}:{store.port}", "db": "x"})
                for name, store in [("sink", self.store), *stores]
            ),
        ]:
            status, reply = ask(self.address, "PUT", f"{base}/{path}", body, self.token)
            if status != 200:
                raise Broken(f"set-up: {status} {reply}")
        # What comes before the store's first window is in none of its windows.
        first = json.loads(reply)["first_window_start"]
        while time.time() < first + 0.1:
            time.sleep(0.01)

    def load(self):
        self.senders.target = (self.address, self.path)

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
        status, reply = ask(self.address, "POST", "/api/v1/projects/faults/query", body, self.token, 60)
        if status != 200:
            raise Broken(f"query: {status} {reply}")
        return json.loads(reply)

    def reports(self):
        """How often each report is there, by its key. Asked of Backtrace's API, which has no small pages, by the key's last digit."""
        found = collections.Counter()
        for digit in range(10):
            body = {"group": ["key"], "filter": [{"key": [["regular-expression", f"{digit}$"]]}], "fold": {"_tx": [["unique"]]}}
            status, reply = ask(self.address, "POST", "/api/query?project=faults", body, self.token, 120)
            if status != 200:
                raise Broken(f"query: {status} {reply}")
            found.update({int(key[1:]): columns[0][0] for key, columns, _ in json.loads(reply)["response"]["values"]})
        return found

    def figure(self, name):
        """What the server says of itself under this name."""
        page = ask(self.address, "GET", "/metrics")[1].decode()
        return float(next(line.split()[1] for line in page.splitlines() if line.startswith(f"{name} ")))

    def send_now(self):
        status, reply = ask(self.address, "POST", "/api/v1/projects/faults/metric-stores/sink/send-now", None, self.token)
        if status not in (200, 202, 204):
            raise Broken(f"send now: {status} {reply}")

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

    def check_end(self):
        """Nothing new comes any more: the senders' account, then the server's own; how many reports there are."""
        self.senders.pause()
        time.sleep(2.5)
        there = self.check_reports(self.senders.known())
        self.kill()
        self.check_audit()
        return there

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
