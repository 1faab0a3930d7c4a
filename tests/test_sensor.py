"""Sensors read from files: what is there, what is not, what vanishes and comes back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from melt_stream.errors import DeviceError, Transient
from melt_stream.reading import LARGEST_FILE
from melt_stream.sensor import Files, FileSensor, Find, Rows, Unreadable, finder, read_files
from melt_stream.stream import Stream
from melt_stream.testing import FakeTree, observe
from melt_stream.units import A, V

BATTERY = "sys/class/power_supply/BAT0"
TREE = {f"{BATTERY}/voltage_now": "12000000\n", f"{BATTERY}/current_now": "500000\n"}


@dataclass
class Battery(FileSensor):
    stream = Stream("battery", volts=V, amps=A)
    at_read: list[Callable[[], None]] = field(default_factory=list)

    def files(self, find: Find) -> dict[str, str]:
        return {Path(path).name: path for path in find("sys/class/power_supply/BAT*/*_now")}

    def parse(self, files: Files) -> Rows:
        if self.at_read:
            self.at_read.pop(0)()
        return {"volts": int(files["voltage_now"]) / 1e6, "amps": files.number("current_now", 1e-6)}


@pytest.fixture
def tree(tmp_path: Path) -> FakeTree:
    return FakeTree(tmp_path / "root", TREE)


def test_files_become_rows(tree: FakeTree):
    keep, ending = observe(Battery(root=str(tree.root)), seconds=0.25)
    assert ending.error is None
    assert [(row["volts"], row["amps"]) for row in keep.rows("it.battery")] == [(12.0, 0.5)] * 3


def test_a_file_that_is_read_by_number_may_be_missing(tree: FakeTree):
    FakeTree(tree.root, {f"{BATTERY}/current_now": None})
    keep, _ = observe(Battery(root=str(tree.root)), seconds=0.05)
    assert [(row["volts"], row["amps"]) for row in keep.rows("it.battery")] == [(12.0, None)]


def test_one_that_must_be_there_costs_the_row(tree: FakeTree):
    def lose() -> None:
        tree.make_unreadable(f"{BATTERY}/voltage_now")

    def mend() -> None:
        tree.write(f"{BATTERY}/voltage_now", "13000000")

    sensor = Battery(root=str(tree.root), at_read=[lambda: None, lose, lambda: None, mend])
    keep, ending = observe(sensor, seconds=0.55)
    assert ending.error is None
    assert keep.column("it.battery", "volts") == [12.0, 12.0, 13.0, 13.0]
    (gap,) = keep.rows("run.gaps")
    assert gap["lost_rows"] == 2
    assert "Is a directory" in gap["reason"]


def test_what_vanished_is_looked_for_again_under_its_new_name(tree: FakeTree):
    def move() -> None:
        (tree.root / BATTERY).rename(tree.root / BATTERY.replace("BAT0", "BAT1"))

    keep, ending = observe(Battery(root=str(tree.root), at_read=[lambda: None, move]), seconds=0.55)
    assert ending.error is None
    assert len(keep.rows("it.battery")) == 5
    (gap,) = keep.rows("run.gaps")
    assert gap["lost_rows"] == 1


def test_what_vanished_for_good_is_a_gap_to_the_end(tree: FakeTree):
    keep, ending = observe(Battery(root=str(tree.root), at_read=[lambda: None, tree.vanish]), seconds=30)
    assert ending.error is None
    assert len(keep.rows("it.battery")) == 2
    assert max(gap["stop"] for gap in keep.rows("run.gaps")) == 30_000_000_000


def test_what_was_never_there_is_no_transient(tmp_path: Path):
    _, ending = observe(Battery(root=str(tmp_path)))
    assert type(ending.error) is DeviceError
    assert f"none of its files is below {tmp_path}" in ending.reason


def test_the_doctor_is_told_what_is_missing(tree: FakeTree, tmp_path: Path):
    assert Battery(root=str(tree.root)).check().what == "2 of 2 files can be read"
    tree.make_unreadable(f"{BATTERY}/current_now")
    assert Battery(root=str(tree.root)).check().what == "1 of 2 files can be read"
    tree.make_unreadable(f"{BATTERY}/voltage_now")
    health = Battery(root=str(tree.root)).check()
    assert not health.ok
    assert "Is a directory" in health.what
    assert not Battery(root=str(tmp_path / "nothing")).check().ok


def test_permission_denied_names_the_cure(monkeypatch: pytest.MonkeyPatch, tree: FakeTree):
    # Root may read everything, and tests may run as root: the kernel's answer is what is faked here.
    def denied(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("melt_stream.reading.os.open", denied)
    assert "sudo chmod a+r" in Battery(root=str(tree.root)).check().cure
    with pytest.raises(DeviceError, match="Permission denied; try: sudo chmod") as caught:
        Battery(root=str(tree.root)).read()
    assert not isinstance(caught.value, Transient)


def test_found_paths_are_sorted_and_relative(tree: FakeTree):
    find = finder(str(tree.root))
    assert find("sys/class/power_supply/*/*_now") == [f"{BATTERY}/current_now", f"{BATTERY}/voltage_now"]
    assert find("sys/class/hwmon/*") == []


def test_a_file_without_end_is_unreadable_and_odd_bytes_are_not(tmp_path: Path):
    (tmp_path / "big").write_bytes(b"x" * (LARGEST_FILE + 1))
    (tmp_path / "odd").write_bytes(b"12\xff\n")
    files = read_files(str(tmp_path), {"big": "big", "odd": "odd", "none": "none"})
    assert {gone.path.rpartition("/")[2] for gone in files.unreadable} == {"big", "none"}
    assert files["odd"] == "12\N{REPLACEMENT CHARACTER}"
    with pytest.raises(Transient, match=r"cannot read .*none: No such file"):
        files["none"]


def test_numbers_are_none_where_there_is_none():
    texts = {"a": " 12 \n", "b": "", "c": "<unknown>", "d": Unreadable("d", "gone")}
    assert [Files(texts).number(key, 0.5) for key in "abcde"] == [6.0, None, None, None, None]
    assert list(Files(texts)) == list("abcd")


def test_a_read_of_its_own_is_refused_since_it_would_never_be_called():
    with pytest.raises(TypeError, match="Mine: expected files and parse, or look and tell"):
        type("Mine", (Battery,), {"read": dict})
