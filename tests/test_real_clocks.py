"""Real clocks of other processes: a time namespace's, and one that faketime lets drift; over a pipe and over TCP.

The process also tells what the host's own clock showed just before and after it read its own (asked of the kernel
directly, which neither changes): that is the truth, to a microsecond or so.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pytest

from melt_stream.analysis.clocks import Maps, fit
from melt_stream.clock import Clock, Reading, monotonic
from melt_stream.outlet import Hub

S = 1_000_000_000
AHEAD_S = 100_000
DEVICE = Clock("device")
TRIPS = 40
SECONDS = 0.8

CHILD = """
import ctypes, socket, sys, time
libc = ctypes.CDLL(None)
class Spec(ctypes.Structure):
    _fields_ = [("s", ctypes.c_long), ("ns", ctypes.c_long)]
def kernel():
    spec = Spec()
    libc.syscall({number}, 1, ctypes.byref(spec))
    return spec.s * 1_000_000_000 + spec.ns
def answer():
    before, own = kernel(), time.monotonic_ns()
    return f"{{before}} {{own}} {{kernel()}}\\n".encode()
if len(sys.argv) > 1:
    with socket.create_server(("127.0.0.1", 0)) as server:
        print(server.getsockname()[1], flush=True)
        link = server.accept()[0].makefile("rwb", buffering=0)
        while link.readline():
            link.write(answer())
else:
    while sys.stdin.buffer.readline():
        sys.stdout.buffer.write(answer())
        sys.stdout.buffer.flush()
"""
SYSCALLS = {"x86_64": 228, "aarch64": 113, "riscv64": 113}
"""Numbers of clock_gettime."""

Ask = Callable[[], bytes]
Delay = Callable[[], None]


class Trip(NamedTuple):
    """A round trip on the host's clock, and what the process told: its own stamp between two of the kernel's."""

    sent: int
    back: int
    before: int
    own: int
    after: int


def some_delay(seed: int) -> Delay:
    """Wait for mostly a tenth of a millisecond, now and then for much longer."""
    rng = np.random.default_rng(seed)
    return lambda: time.sleep(min(1e-4 * float(rng.pareto(1.3)), 0.02))


@contextlib.contextmanager
def over_a_pipe(command: list[str]) -> Iterator[Ask]:
    """Delays before each request and, three times as many, before each reply is seen."""
    ways = some_delay(1), some_delay(2)
    with process(command, []) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        stdin, stdout = child.stdin, child.stdout

        def ask() -> bytes:
            ways[0]()
            stdin.write(b"?\n")
            answer = stdout.readline()
            for _ in range(3):
                ways[1]()
            return answer

        yield ask


@contextlib.contextmanager
def over_tcp(command: list[str]) -> Iterator[Ask]:
    """Through a proxy that holds back each line, either way, before it passes it on."""
    with process(command, ["tcp"]) as child, contextlib.ExitStack() as open_:
        assert child.stdout is not None
        device = open_.enter_context(socket.create_connection(("127.0.0.1", int(child.stdout.readline()))))
        front = open_.enter_context(socket.create_server(("127.0.0.1", 0)))
        mine = open_.enter_context(socket.create_connection(front.getsockname()))
        proxied = open_.enter_context(front.accept()[0])
        for source, sink, seed in ((proxied, device, 3), (device, proxied, 4)):
            open_.enter_context(passing_on(source, sink, some_delay(seed)))
        open_.callback(mine.shutdown, socket.SHUT_WR)
        link = open_.enter_context(mine.makefile("rwb", buffering=0))

        def ask() -> bytes:
            link.write(b"?\n")
            return link.readline()

        yield ask


@contextlib.contextmanager
def passing_on(source: socket.socket, sink: socket.socket, delay: Delay) -> Iterator[None]:
    """Pass on what comes, late, until it ends."""

    def run() -> None:
        while block := source.recv(4096):
            delay()
            sink.sendall(block)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join()


@contextlib.contextmanager
def process(command: list[str], arguments: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    script = CHILD.format(number=SYSCALLS[os.uname().machine])
    with subprocess.Popen(
        [*command, sys.executable, "-c", script, *arguments],
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as child:
        yield child
        assert child.stdin is not None
        child.stdin.close()


def trips(ask: Ask) -> list[Trip]:
    """Ask in a burst at both ends and some times between."""
    ask()  # the first answer also waits for imports
    start, found = monotonic(), []
    for when in (0.0, 0.5, 1.0):
        while monotonic() - start < when * SECONDS * S:
            time.sleep(1e-3)
        for _ in range(TRIPS // 3):
            sent = monotonic()
            before, own, after = map(int, ask().split())
            found.append(Trip(sent, monotonic(), before, own, after))
    return found


def fitted(found: list[Trip]) -> tuple[Maps, dict[str, float]]:
    hub = Hub(now=monotonic)
    out = hub.outlet("pipe")
    for trip in found:
        out.clock_reading(Reading(DEVICE, trip.own, 1, trip.sent, trip.back))
    (batch,) = [b.data for b in hub.take() if b.source.key == "run.readings"]
    maps = fit(pa.Table.from_batches([batch]))
    (row,) = maps.table("r", found[0].sent, found[-1].back).to_pylist()
    return maps, row


def off(maps: Maps, own: int) -> tuple[int, float, float]:
    """Where the map puts a stamp, and between what the truth lies."""
    placed = maps.to_host("pipe.device", 0, np.array([own], np.int64))
    assert placed is not None
    low, high = maps.bound("pipe.device", 0, placed)
    return int(placed[0]), placed[0] + float(low[0]), placed[0] + float(high[0])


LINKS = pytest.mark.parametrize("link", [over_a_pipe, over_tcp])


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for a time namespace")
@pytest.mark.skipif(shutil.which("unshare") is None, reason="expected unshare (util-linux), found none")
@LINKS
def test_a_time_namespace_s_offset_lies_within_the_bound(
    link: Callable[[list[str]], contextlib.AbstractContextManager[Ask]],
) -> None:
    command = ["unshare", "--time", "--monotonic", str(AHEAD_S), "--boottime", str(2 * AHEAD_S)]
    if subprocess.run([*command, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this kernel or container refuses a time namespace")
    with link(command) as ask:
        found = trips(ask)
    maps, row = fitted(found)
    for trip in found:
        truth = trip.own - AHEAD_S * S
        assert trip.before == pytest.approx(trip.own, abs=S)  # also the kernel's is that of the namespace
        _, low, high = off(maps, trip.own)
        assert low - 1 <= truth <= high + 1
    assert abs(row["drift_ppm"]) <= row["drift_bound_ppm"]
    assert row["bound_ns"] < 2e7


@pytest.mark.skipif(shutil.which("faketime") is None, reason="expected faketime: apt-get install faketime")
@pytest.mark.parametrize("rate", ["1.0001", "0.9999"])
@LINKS
def test_a_clock_that_faketime_lets_drift_lies_within_the_bound(
    link: Callable[[list[str]], contextlib.AbstractContextManager[Ask]], rate: str
) -> None:
    with link(["faketime", "-f", f"+0 x{rate}"]) as ask:
        found = trips(ask)
    first, last = found[0], found[-1]  # faketime does what it says:
    assert (last.own - first.own) / (last.after - first.before) <= float(rate)
    assert (last.own - first.own) / (last.before - first.after) >= float(rate)
    maps, row = fitted(found)
    for trip in found:
        _, low, high = off(maps, trip.own)
        assert low <= trip.after
        assert trip.before <= high
    assert abs(row["drift_ppm"] - (1 / float(rate) - 1) * 1e6) <= row["drift_bound_ppm"]
    assert row["bound_ns"] < 2e7
