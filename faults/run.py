"""Breaks the built server for real and counts what is left: kills, failing system calls, power loss, a full disk, a store that is away
or cut off, a clock that is set, a storm of reports.

Reports are submitted all the time with ids of their own, and a store takes every window over HTTP. After each fault the server is
started again on the same folder, and three accounts have to agree:

- the senders': every report that was answered 200 before the fault is there, none is there twice, and none that nobody sent;
- the store's: each second has one value, a body sent again is the same bytes, and the sum is the number of reports;
- the server's own: `crashmeter audit --offline` finds everything balanced.

It needs Linux and Python 3.11; rigs that need more (root, strace, libfaketime, wrk, iproute2) say so where it is not there. It is no
benchmark: what it prints is how often it tried, and of the storm what it measured.
"""

import argparse
import collections
import ctypes
import fcntl
import http.client
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time

from rig import Broken, Rig, Store, ask

# <linux/ext4.h>: EXT4_IOC_SHUTDOWN is _IOR('X', 125, __u32); with NOLOGFLUSH nothing that is not on the disk gets there.
EXT4_IOC_SHUTDOWN = 0x8004587D
EXT4_GOING_FLAGS_NOLOGFLUSH = 2
# What every fault of a system call is tried on.
CALLS = ["write", "pwrite64", "fdatasync", "fsync", "rename", "ftruncate", "unlink"]


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
        rig.path, rig.token, rig.address, rig.store = first.path, first.token, first.address, first.store
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
    rig = Rig(args.program, at, args.seed, log=folder)
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
        there = rig.check_end()
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
    rig = Rig(args.program, at, args.seed, log=folder)
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
            if ask(rig.address, "GET", "/api/v1/projects", token=rig.token)[0] != 200:
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
        there = rig.check_end()
        return f"{rounds} full disks, {rig.senders.refused[507]} refusals, {there} reports"
    finally:
        rig.end()
        subprocess.run(["umount", "-l", at], check=False)


def outage(args, folder):
    """One store is down for as many seconds as there are cycles, another is not: in the end both have the same."""
    rig, other = Rig(args.program, folder, args.seed), Store()
    # Some hundred reports a second.
    rig.senders.pause_secs = 0.05
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
        rig.send_now()
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


def partition(args, folder):
    """The way to the store is cut, in turn: the link is down, answers are lost, requests are lost."""
    if os.geteuid() != 0 or not shutil.which("ip"):
        return "not done: it needs root and ip (iproute2), for a network of its own"
    name, rig = f"cm{os.getpid() % 100_000}", None
    if not runs("ip", "netns", "add", name):
        return "not done: no network namespace can be made here"
    try:
        # The first pair is for the senders and stays up, the second for the store.
        for number in (1, 2):
            here, there = f"{name}h{number}", f"{name}n{number}"
            for words in [
                f"ip link add {here} type veth peer name {there} netns {name}",
                f"ip addr add 10.99.{number}.1/24 dev {here}",
                f"ip link set {here} up",
                f"ip -n {name} addr add 10.99.{number}.2/24 dev {there}",
                f"ip -n {name} link set {there} up",
            ]:
                subprocess.run(words.split(), check=True)
        rig = Rig(args.program, folder, args.seed, host="10.99.1.2", store=Store("10.99.2.1"))
        rig.inside = ["ip", "netns", "exec", name]
        rig.senders.pause_secs = 0.01
        rig.set_up()
        rig.load()
        # What goes to a hardware address that nobody has is lost without a word.
        nobody = "lladdr 02:00:00:00:00:99 nud permanent"
        answers, requests = f"10.99.2.2 dev {name}h2", f"10.99.2.1 dev {name}n2"
        cuts = [
            (f"ip link set {name}h2 down", f"ip link set {name}h2 up"),
            (f"ip neigh replace {answers} {nobody}", f"ip neigh del {answers}"),
            (f"ip -n {name} neigh replace {requests} {nobody}", f"ip -n {name} neigh del {requests}"),
        ]
        rounds, late = max(3, args.cycles // 4), 0
        for number in range(rounds):
            cut, mend = cuts[number % len(cuts)]
            subprocess.run(cut.split(), check=True)
            time.sleep(rig.senders.random.uniform(2, 6))
            late += max(0, int(time.time()) - max(rig.store.values, default=int(time.time())) - 1)
            if number % 4 == 3:
                rig.kill()
            subprocess.run(mend.split(), check=True)
            if number % 4 == 3:
                rig.start()
            time.sleep(1)
        rig.senders.pause()
        time.sleep(2.5)
        there = rig.check_reports(rig.senders.known())
        rig.send_now()
        rig.check_store(there)
        rig.check_end()
        return f"{rounds} cuts, {late} windows late, {there} reports, {len(rig.store.values)} windows in the store"
    finally:
        if rig:
            rig.end()
        runs("ip", "netns", "del", name)
        for number in (1, 2):
            runs("ip", "link", "del", f"{name}h{number}")


def runs(*words):
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


def clock(args, folder):
    """The wall clock is set while the server runs and between two runs: windows go on second by second, and people are told."""
    library = next(pathlib.Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    if library is None:
        return "not done: libfaketime is not installed"
    rig, wall, steps = Rig(args.program, folder, args.seed), folder / "wall", 0
    rig.senders.pause_secs = 0.02
    rig.environment = os.environ | {
        "LD_PRELOAD": str(library), "FAKETIME_TIMESTAMP_FILE": str(wall), "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }

    def set_wall(seconds):
        # A rename, so that nobody reads half of it.
        (folder / "wall.new").write_text(f"{seconds:+d}\n")
        (folder / "wall.new").rename(wall)

    def is_told(offset, suspect, about=3):
        until = time.monotonic() + 10
        while True:
            seen = (rig.figure("crashmeter_clock_offset_seconds"), rig.figure("crashmeter_clock_suspect"))
            if abs(seen[0] - offset) < about and bool(seen[1]) == suspect:
                return
            if time.monotonic() > until:
                raise Broken(f"offset and suspicion are {seen}, not {(offset, suspect)}")
            time.sleep(0.1)

    def goes_on(least=1):
        """Windows come second by second, none passed over; at least so many in four seconds."""
        begun = max(rig.store.values)
        time.sleep(4)
        since = sorted(second for second in rig.store.values if second > begun)
        if since != list(range(begun + 1, begun + 1 + len(since))) or not least <= len(since) <= 6:
            raise Broken(f"after {begun} came the windows {since}")

    try:
        set_wall(0)
        rig.set_up()
        rig.load()
        time.sleep(4)
        # A jump ahead is not believed at once, one back never: stamps go on by the time that has passed.
        for step in [600, -200, 3_600, -250, 40 * 86_400]:
            set_wall(step)
            is_told(-step, suspect=step > 0)
            # While the clock leads, it runs at half speed until both are level.
            goes_on(least=2 if step > 0 else 1)
            set_wall(0)
            is_told(0, suspect=False)
            goes_on()
            steps += 1
        # Set back between two runs: stamps go on from the last one.
        for step in [-100, -200]:
            last = max(rig.store.values)
            rig.kill()
            set_wall(step)
            rig.start()
            # It has run slowly since it was set back before.
            is_told(-step, suspect=False, about=30)
            goes_on()
            if max(rig.store.values) <= last:
                raise Broken("windows went back")
            steps += 1
        set_wall(0)
        there = rig.check_end()
        # So far ahead between two runs that it can hardly be right: taken, and told.
        set_wall(40 * 86_400)
        rig.start()
        is_told(0, suspect=True)
        if rig.check_reports(rig.senders.known()) != there:
            raise Broken("reports have come or gone with the clock")
        rig.kill()
        rig.check_audit()
        return f"{steps + 1} steps of the clock, {there} reports, {len(rig.store.values)} windows"
    finally:
        rig.end()


# Every report is another, and answers are told apart. Each connection rests for so many milliseconds between two reports.
STORM = """
local n, first = 0, FIRST
request = function()
  n = n + 1
  local body = string.format('{"uuid":"%08x-0000-4000-8000-%012x","attributes":{"key":"s%d","guid":"g%d"}}', first + n, n, n, n % 1000)
  return wrk.format("POST", nil, {["Content-Type"] = "application/json"}, body)
end
delay = function()
  return REST
end
done = function(summary)
  io.write(string.format("answers %d %d", summary.requests, summary.errors.status))
end
"""
# Reports a second of a project as usual; a storm has a hundred times as many.
USUAL = 20
CONNECTIONS = 32


def storm(args, folder):
    """A project sends a hundred times as much as before, then all it can: its reports are counted, in time, and another hardly notices."""
    if not shutil.which("wrk"):
        return "not done: wrk is not installed"
    rig, took, rates, counted = Rig(args.program, folder, args.seed), {}, {}, [0, 0]
    seconds = max(5, args.cycles)
    try:
        rig.set_up()
        made = json.loads(ask(rig.address, "POST", "/api/v1/projects", {"name": "other"}, rig.token)[1])
        other = "/" + made["submission_url"].split("/", 3)[3]

        def send_other(phase):
            """At its own pace whatever the answers take: each is timed from when it was due."""
            connection = http.client.HTTPConnection(*rig.address, timeout=30)
            took[phase], began = [], time.monotonic()
            for number in range(USUAL * seconds):
                due = began + number / USUAL
                time.sleep(max(0, due - time.monotonic()))
                connection.request("POST", other, json.dumps({"attributes": {"n": number}}), {"Content-Type": "application/json"})
                reply = connection.getresponse()
                reply.read()
                if reply.status != 200:
                    raise Broken(f"the other project was refused: {reply.status}")
                took[phase].append(time.monotonic() - due)

        def send(phase, rest_ms):
            script = folder / f"{phase}.lua"
            script.write_text(STORM.replace("FIRST", str(len(rates) << 28)).replace("REST", str(rest_ms)))
            host, port = rig.address
            command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds + 1}s", "-s", str(script), f"http://{host}:{port}{rig.path}"]
            storming = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            time.sleep(0.5)
            send_other(phase)
            sent, refused = (int(number) for number in storming.communicate()[0].rsplit("answers ", 1)[1].split())
            rates[phase] = sent / (seconds + 1)
            counted[0] += sent
            counted[1] += refused

        send_other("quiet")
        send("storm", CONNECTIONS * 1_000 // (100 * USUAL) - 1)
        send("flood", 0)
        lag = rig.figure("crashmeter_seal_lag_seconds")
        time.sleep(2.5)
        there = rig.query({"query": {"fold": {"_tx": [["unique"]]}}, "from": 0, "to": 4_000_000_000})["matched"]
        # wrk does not wait for the last answer of each of its connections.
        sent, refused = counted
        if not sent - refused <= there <= sent - refused + 2 * CONNECTIONS:
            raise Broken(f"{sent} sent, {refused} refused, and there are {there}")
        rig.check_store(there)
        if lag > 1:
            raise Broken(f"the last window was sealed {lag:.1f} s after its end")
        rig.kill()
        rig.check_audit()
        p50, p99 = ({phase: sorted(times)[int(len(times) * part)] * 1_000 for phase, times in took.items()} for part in (0.5, 0.99))
        return (
            f"{there} reports, {refused} refused, all counted, sealed {lag * 1_000:.0f} ms after the end; the other project waits "
            f"{p50['quiet']:.1f} ms (p99 {p99['quiet']:.1f}) when quiet, {p50['storm']:.1f} ({p99['storm']:.1f}) beside "
            f"{rates['storm']:.0f} reports a second, {p50['flood']:.1f} ({p99['flood']:.1f}) beside {rates['flood']:.0f}"
        )
    finally:
        rig.end()


RIGS = {
    "kills": kills, "calls": calls, "power": power, "full": full, "outage": outage, "partition": partition, "clock": clock, "storm": storm,
}


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
