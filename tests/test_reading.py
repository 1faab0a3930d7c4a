"""Files that are read again and again: which descriptors are kept, and what happens when they go stale."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from melt_stream.reading import LIMIT, Mounts, Reader, Unreadable, mounts
from melt_stream.testing import FakeTree


def kept() -> set[str]:
    """The files that this process has open."""
    found = set()
    for path in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the listing's own
            found.add(os.readlink(path))  # noqa: PTH115 - Path.readlink makes a path of "socket:[1]"
    return found


def how_many() -> int:
    """How many descriptors this process has."""
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.skipif(not mounts().proc, reason="needs /proc")
def test_a_file_of_the_kernel_is_opened_once_and_read_anew_each_time():
    reader = Reader("", {"switches": "proc/thread-self/status", "stat": "proc/stat"}, mounts())
    mine = f"/proc/{os.getpid()}/task/{os.getpid()}/status"
    first = reader.read()
    assert {mine, "/proc/stat"} <= kept()
    while (second := reader.read())["stat"] == first["stat"]:
        pass  # the kernel counts in hundredths of a second: reading long enough makes it change
    for text in (first["stat"], second["stat"]):
        assert isinstance(text, str)
        assert text.startswith("cpu ")
        assert text.splitlines()[-1].startswith("softirq ")
    reader.close()
    assert not {mine, "/proc/stat"} & kept()
    assert isinstance(reader.read()["stat"], str)
    del reader
    assert "/proc/stat" not in kept()


@pytest.mark.skipif(not mounts().sysfs, reason="needs /sys")
def test_a_file_of_sysfs_is_kept_and_whole():
    path = "/sys/class/net/lo/mtu"
    reader = Reader("", {"mtu": path[1:]}, mounts())
    for _ in range(3):
        assert reader.read() == {"mtu": Path(path).read_text()}
    assert any(name.endswith("/lo/mtu") for name in kept())
    reader.drop(["mtu"])
    assert not any(name.endswith("/lo/mtu") for name in kept())
    assert reader.read() == {}


@pytest.mark.skipif(not mounts().proc, reason="needs /proc")
def test_what_is_kept_of_a_process_that_has_gone_is_looked_for_by_its_name():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    file = f"proc/{child.pid}/stat"
    reader = Reader("", {"stat": file}, mounts())
    assert isinstance(reader.read()["stat"], str)
    assert f"/{file}" in kept()
    child.communicate(b"\n")
    assert reader.read() == {"stat": Unreadable(f"/{file}", "No such file or directory")}
    assert not any(str(child.pid) in name for name in kept() if name.startswith("/proc"))


def test_what_fails_is_opened_again_by_its_name(tmp_path: Path):
    """A file that stands in for one of the kernel's, whose descriptor begins to fail."""
    tree = FakeTree(tmp_path, {"a": "1\n"})
    reader = Reader(str(tmp_path), {"a": "a"}, Mounts(sysfs=frozenset({tmp_path.stat().st_dev})))
    assert reader.read() == {"a": "1\n"}
    assert str(tmp_path / "a") in kept()
    (tmp_path / "a").write_text("")  # as where a device has gone: nothing is read
    tree.write("a", "2\n")
    assert reader.read() == {"a": "2\n"}
    tree.vanish("a")
    tree.write("a", "3\n")
    assert reader.read() == {"a": "2\n"}  # which is why other file systems' descriptors are not kept:
    plain = Reader(str(tmp_path), {"a": "a"}, mounts())
    assert plain.read() == {"a": "3\n"}
    for text in ("4\n", "x" * 20_000, ""):
        tree.write("a", text)
        assert plain.read() == {"a": text}
    (tmp_path / "a").write_text("y" * 10_000)
    assert plain.read() == {"a": "y" * 10_000}


def test_not_every_descriptor_is_kept():
    here = Mounts(proc=frozenset({Path("/proc").stat().st_dev}))
    before = how_many()
    reader = Reader("/proc", {str(number): "uptime" for number in range(LIMIT + 9)}, here)
    assert all(isinstance(text, str) for text in reader.read().values())
    assert how_many() == before + LIMIT
    reader.close()
    assert how_many() == before
