"""The collector `lines` on real ports, sockets, programs and files."""

from __future__ import annotations

import fcntl
import os
import sys
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from melt_stream.clock import monotonic
from melt_stream.collectors.lines import Lines
from melt_stream.emulators._pty import Line, plugged_in
from melt_stream.engine import record
from melt_stream.errors import ConfigError, DeviceError, Transient
from melt_stream.outlet import Hub
from melt_stream.plugins import configure
from melt_stream.testing import Keep
from tests.collectors.collecting import Watched, collecting

COLUMNS = {"millis": "ms", "volts": "V", "amps": "mA"}
BOARD = {"board": {"boundary": "dc_in", "kind": "mean"}}
TIMED = {"columns": COLUMNS, "rails": BOARD, "time": "millis", "hz": 100.0}
PLAIN = {"columns": {"volts": "V", "amps": "mA"}, "rails": BOARD}


def made(**fields) -> Lines:
    return configure(Lines, fields, "it")


def lines(first: int, stop: int) -> bytes:
    return b"".join(b"%d,5.0,%d\n" % (10 * k, k) for k in range(first, stop))


def counted(watched: Watched) -> list[int]:
    return [round(row["amps"] * 1000) for row in watched.of("board")]


@asynccontextmanager
async def served(*answers: bytes):
    """A TCP server that sends each connection one of these, and closes it when there is another."""
    left = list(answers)

    async def serve(stream: trio.SocketStream) -> None:
        await stream.send_all(left.pop(0) if left else b"")
        if not left:
            await trio.sleep_forever()
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield f"127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


async def opened(line: Line) -> None:
    """Wait until somebody has opened the port, which throws away what was sent before: then it is locked."""
    with trio.fail_after(10):
        while True:
            try:
                fcntl.flock(line.slave, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            fcntl.flock(line.slave, fcntl.LOCK_UN)
            await trio.sleep(0.001)


async def test_a_serial_sensor_with_its_own_clock():
    async with plugged_in() as line, collecting(made(port=line.path, **TIMED)) as watched:
        await opened(line)
        before = monotonic()
        await line.write(b"0\n" + lines(1, 50))
        await watched.until(lambda: len(watched.of("board")) == 49)
        rows = watched.of("board")
        assert [row["tick"] for row in rows] == [10 * k for k in range(1, 50)]
        assert {row["volts"] for row in rows} == {5.0}
        assert counted(watched) == list(range(1, 50))
        (rail,) = watched.rows("run.rails")
        assert (rail["name"], rail["boundary"], rail["kind"]) == ("board", "dc_in", "mean")
        reading = watched.rows("run.readings")
        ours = [one for one in reading if one["clock_of"] == "it.device"]
        assert all(one["kind"] == "arrival" and one["tick_ns"] == 1e6 for one in ours)
        assert all(before < one["not_after"] <= monotonic() and one["count"] % 10 == 0 for one in ours)
        assert watched.gaps() == []


async def test_the_rest_of_a_line_is_never_taken_for_a_line():
    async with plugged_in() as line, collecting(made(port=line.path, **PLAIN)) as watched:
        await opened(line)
        await line.write(b"5.0,1\n5.0,2\n")  # of 15.0,1, perhaps
        await watched.until(lambda: watched.of("board"))
        assert counted(watched) == [2]


async def test_lost_bytes_are_a_gap_of_their_true_length():
    harmed = (
        lines(0, 100).replace(lines(20, 31), lines(20, 31)[2:-3]).replace(b"500,5.0,50\n", b"\xff\xfejunk\n")
    )
    async with plugged_in() as line, collecting(made(port=line.path, **TIMED)) as watched:
        await opened(line)
        await line.write(b"\n" + harmed)
        await watched.until(lambda: counted(watched)[-1:] == [99])
        gaps = watched.gaps("board")
        got = counted(watched)
        missing = sorted(set(range(1, 100)) - set(got))
        assert sum(gap["lost_rows"] for gap in gaps) == len(missing)
        for gap in gaps:
            lost = [k for k in missing if gap["start"] < 10 * k < gap["stop"]]
            assert len(lost) == gap["lost_rows"]
        assert all(row["tick"] == 10 * round(row["amps"] * 1000) for row in watched.of("board"))
        assert any("xff" in gap["reason"] for gap in gaps)


async def test_junk_between_two_lines_that_follow_each_other_is_no_gap():
    async with plugged_in() as line, collecting(made(port=line.path, **TIMED)) as watched:
        await opened(line)
        await line.write(b"\n" + lines(0, 20) + b"\x00\x80 hello\n" + lines(20, 40))
        await watched.until(lambda: counted(watched)[-1:] == [39])
        assert watched.gaps() == []


async def test_a_sensor_that_restarts_gets_a_new_epoch():
    async with plugged_in() as line, collecting(made(port=line.path, **TIMED)) as watched:
        await opened(line)
        await line.write(b"\n" + lines(500, 520) + b"boot 1.0\n" + lines(0, 20))
        await watched.until(lambda: len(watched.of("board")) >= 40)
        rows = watched.of("board")
        assert [row["epoch"] for row in rows] == [0] * 20 + [1] * 20
        (gap,) = watched.gaps("board")
        assert (gap["start"], gap["stop"], gap["epoch_of"]) == (5190, 5190, 0)
        assert gap["reason"] == "the device began to count again"


async def test_an_unplugged_sensor_is_asked_again_and_told_so(tmp_path):
    link = tmp_path / "sensor"
    async with collecting(made(port=str(link), **PLAIN)) as watched:
        async with plugged_in() as line:
            link.symlink_to(line.path)
            await opened(line)
            await line.write(b"\n5.0,1\n")
            await watched.until(lambda: watched.of("board"))
            line.unplug()
        link.unlink()
        async with plugged_in() as line:
            link.symlink_to(line.path)
            await opened(line)
            await line.write(b"\n5.0,2\n")
            await watched.until(lambda: counted(watched) == [1, 2])
        first, second = watched.of("board")
        (gap,) = watched.gaps("board")
        assert (gap["start"], gap["stop"]) == (first["tick"], second["tick"])
        assert "unplugged" in gap["reason"]


async def test_a_tcp_server_that_closes_is_asked_again():
    async with (
        served(b"\n5.0,1\n5.0,2\n", b"\n5.0,3\n") as address,
        collecting(made(tcp=address, **PLAIN)) as watched,
    ):
        await watched.until(lambda: counted(watched) == [1, 2, 3])
        (gap,) = watched.gaps("board")
        assert "the end of the connection" in gap["reason"]


async def test_silence_and_lines_that_are_none_are_told_apart():
    async with served(b"\n5.0,1\n", b"\n5.0,1\nhello\n", b"\n5.0,3\n") as address:
        sensor = made(tcp=address, patience_s=0.05, **PLAIN)
        async with collecting(sensor) as watched:
            await watched.until(lambda: 3 in counted(watched))
    async with served(b"\nhello\nworld\n") as address:
        with pytest.raises(
            Transient, match="got 2 lines that are none, the first: expected 2 columns, got 1 in 'hello'"
        ):
            await made(tcp=address, patience_s=0.1, **PLAIN).collect(Hub().outlet("it"))
    async with served(b"") as address:
        with pytest.raises(Transient, match=r"expected a record within 0.05 s, got none"):
            await made(tcp=address, patience_s=0.05, **PLAIN).collect(Hub().outlet("it"))


async def test_a_command_ends_the_collector_and_a_failing_one_the_run():
    good = "print('5.0,1'); print('5.0,2'); print('5.0,', end='')"
    keep = Keep()
    ending = await record({"it": made(command=[sys.executable, "-c", good], **PLAIN)}, [keep])
    assert (ending.error, ending.reason) == (None, "collectors ended")
    assert [row["amps"] for row in keep.rows("it.board")] == [0.001, 0.002]
    (gap,) = keep.rows("run.gaps")
    assert (gap["reason"], gap["lost_rows"]) == ("the last line has no end", 1)
    ending = await record({"it": made(command=["sh", "-c", "echo 5,1; exit 3"], **PLAIN)}, [Keep()])
    assert isinstance(ending.error, DeviceError)
    assert "expected 'sh' to end with status 0, got 3" in str(ending.error)
    ending = await record({"it": made(command=["/no/such/program"], **PLAIN)}, [Keep()])
    assert isinstance(ending.error, DeviceError)


async def test_a_file_is_read_from_where_it_ends_now(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("5.0,1\n5.0,")
    ready = made(file=str(path), **PLAIN)
    async with collecting(ready) as watched:
        with path.open("a") as file:
            for k in range(2, 400):
                file.write(f"5.0,{k}\n")
                file.flush()
                if watched.of("board"):
                    break
                await trio.sleep(0.02)
        assert 1 not in counted(watched)
        assert watched.gaps() == []


async def test_a_fifo(tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    fd = os.open(path, os.O_RDWR)
    try:
        async with collecting(made(file=str(path), **PLAIN)) as watched:
            os.write(fd, b"\n5.0,1\n5.0,2\n")
            await watched.until(lambda: counted(watched) == [1, 2])
    finally:
        os.close(fd)


async def test_what_comes_at_once_is_spread_where_the_rate_is_known():
    async with plugged_in() as line, collecting(made(port=line.path, hz=100.0, **PLAIN)) as watched:
        await opened(line)
        await line.write(b"\n" + b"".join(b"5.0,%d\n" % k for k in range(20)))
        await watched.until(lambda: len(watched.of("board")) == 20)
        ticks = [row["tick"] for row in watched.of("board")]
        assert ticks == sorted(ticks)
        assert ticks[-1] - ticks[0] == 19 * 10_000_000


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "expected one of port, tcp, command and file, got none"),
        ({"port": "/dev/x", "tcp": "a:1"}, r"got \['port', 'tcp'\]"),
        ({"tcp": "nowhere"}, "expected HOST:PORT, got 'nowhere'"),
        (
            {"port": "/dev/x", "time": "volts"},
            "time: expected a column in s, ms, us, ns, got 'volts', in 'V'",
        ),
        ({"port": "/dev/x", "columns": {"volts": {"unit": "V", "sclae": 2}}}, "columns"),
        ({"port": "/dev/x", "rails": {"board": {"boundary": "moon"}}}, "boundary"),
        ({"port": "/dev/x", "delimitter": ";"}, "did you mean 'delimiter'"),
    ],
)
def test_a_wrong_recipe_is_refused_before_anything_starts(fields, said):
    with pytest.raises(ConfigError, match=said):
        made(**{**PLAIN, **fields})


def test_doctor_says_what_is_not_there(tmp_path):
    assert not made(port="/dev/nothing", **PLAIN).check().ok
    assert not made(command=["no-such-program"], **PLAIN).check().ok
    assert not made(file=str(tmp_path / "none"), **PLAIN).check().ok
    assert made(tcp="127.0.0.1:1", **PLAIN).check().ok
