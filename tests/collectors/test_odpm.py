"""Pixel's power monitors: their text, repeats, the phone's clock and how it is read, resets, and what cannot be read."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melt_stream.analysis.integrate import RailData, pieces
from melt_stream.collectors.odpm import CLOCK, DEVICES, Counter, Odpm, Refresh, refresh
from melt_stream.errors import DeviceError
from melt_stream.sensor import ClockShown
from tests.collectors.host_tree import collect, plant, rails, spoil

BOOT_MS = 93_000
"""What the phone's clock shows at the host's 0."""


def chip(number, at_ms, duration=78_102, **energies):
    lines = [f"CH{n}(T={duration})[{rail}], {energy}\n" for n, (rail, energy) in enumerate(energies.items())]
    folder = f"{DEVICES}/iio:device{number}"
    return {
        f"{folder}/energy_value": f"t={at_ms}\n" + "".join(lines),
        f"{folder}/sampling_rate": "125.000000",
    }


class Phone:
    """A fake tree that is read by hand."""

    def __init__(self, root):
        self.root, self.sensor = root, Odpm(root=str(root))

    def read(self, *trees):
        for tree in trees:
            plant(self.root, tree)
        items = self.sensor.read()
        self.shown = [item for item in items if isinstance(item, ClockShown)]
        return [
            (row["rail"], row["tick"], row["energy"], row["epoch"]) for row in items if isinstance(row, dict)
        ]


def test_the_text_is_a_moment_and_counters():
    text = "t=93245\nCH0(T=78102)[VSYS_PWR_DISPLAY], 48213077\nCH11(T=5)[S2M_VDD_CPUCL2], 0\n"
    assert refresh(text) == Refresh(
        93245, {"VSYS_PWR_DISPLAY": Counter(78102, 48213077), "S2M_VDD_CPUCL2": Counter(5, 0)}
    )


@pytest.mark.parametrize(
    "text", ["", "t=\nCH0(T=1)[A], 2", "t=5", "CH0(T=1)[A], 2", "t=5\nCH0(T=1)[A] 2", "t=-5\nCH0(T=1)[A], 2"]
)
def test_what_is_not_whole_is_nothing(text):
    assert refresh(text) is None


@given(st.text(max_size=200))
def test_no_text_does_harm(text):
    refresh(text)
    refresh(f"t=5\nCH0(T=1)[A], 2\n{text}")


def test_the_same_moment_again_is_no_row_whatever_the_energies(tmp_path):
    phone = Phone(tmp_path)
    assert phone.read(chip(0, 1000, A=5, B=7), chip(1, 1002, C=9)) == [
        ("A", 1000, 5, 0),
        ("B", 1000, 7, 0),
        ("C", 1002, 9, 0),
    ]
    assert phone.read() == []
    assert phone.read(chip(0, 1160, A=5, B=8)) == [
        ("A", 1160, 5, 0),
        ("B", 1160, 8, 0),
    ]  # the same energy, later: a row
    assert [shown.tick for shown in phone.shown] == [1160]


def test_rows_never_go_back_though_somebody_else_asked_a_chip_meanwhile(tmp_path):
    phone = Phone(tmp_path)
    phone.read(chip(0, 1000, A=5), chip(1, 1002, C=9))
    assert phone.read(chip(0, 1001, A=6)) == []
    assert [shown.tick for shown in phone.shown] == [1001]
    assert phone.read(chip(0, 1200, A=8), chip(1, 1190, C=10)) == [("C", 1190, 10, 0), ("A", 1200, 8, 0)]


def test_a_reboot_is_one_new_epoch_for_both_chips(tmp_path):
    phone = Phone(tmp_path)
    phone.read(chip(0, 90_000, A=500), chip(1, 90_002, C=900))
    assert phone.read(chip(0, 15_000, A=600), chip(1, 15_002, C=1)) == [
        ("A", 15_000, 600, 1),
        ("C", 15_002, 1, 1),
    ]
    assert {shown.epoch for shown in phone.shown} == {1}
    assert phone.read(chip(0, 15_200, A=610)) == [("A", 15_200, 610, 1)]


def test_a_counter_that_was_set_back_unseen_is_a_new_epoch_and_one_that_fell_is_left_to_the_analysis(
    tmp_path,
):
    phone = Phone(tmp_path)
    phone.read(chip(0, 1000, duration=900, A=50))
    assert phone.read(chip(0, 9000, duration=800, A=70)) == [("A", 9000, 70, 1)]
    assert phone.read(chip(0, 9200, duration=10, A=3)) == [("A", 9200, 3, 1)]


def test_a_channel_that_is_given_another_rail_is_another_rail(tmp_path):
    phone = Phone(tmp_path)
    phone.read(chip(0, 1000, A=50))
    assert phone.read(chip(0, 1200, duration=10, B=3)) == [("B", 1200, 3, 0)]
    assert {rail.name for _, rail in phone.sensor.rails()} == {"A", "B"}


def test_two_rails_of_one_name_are_two(tmp_path):
    names = {row[0] for row in Phone(tmp_path).read(chip(0, 1000, A=50), chip(1, 1000, A=60))}
    assert len(names) == 2


async def test_every_reading_holds_the_moment_at_which_the_chip_was_asked(tmp_path, autojump_clock):
    """Somebody else asks the chip every 70 ms, and we read every 100 ms: what we are shown is up to 70 ms old."""
    root = plant(tmp_path, chip(0, BOOT_MS, A=0))
    asked = [k * 70 for k in range(1, 40)]
    acts = {
        ms / 1e3 + 1e-4: (lambda ms=ms: plant(tmp_path, chip(0, BOOT_MS + ms, A=1000 * ms))) for ms in asked
    }
    rows = await collect(Odpm(root=root), 3, acts)
    readings = rows["run.readings"]
    assert {r["clock_of"] for r in readings} == {"x.boottime"}
    assert {(r["tick_ns"], r["resolution"], r["epoch_of"]) for r in readings} == {(1e6, 1, 0)}
    assert len(readings) == len({row["tick"] for row in rows["x.odpm"]}) > 20
    for reading in readings[1:]:
        true_ns = (reading["count"] - BOOT_MS) * 1e6 + 1e5
        assert reading["not_before"] <= true_ns <= reading["not_after"]
        assert reading["not_after"] - reading["not_before"] <= 100e6 + 1
    assert readings[0]["not_after"] - readings[0]["not_before"] == 160_000_000  # nothing was read before it
    assert {row["t_u"] for row in rows["x.odpm"]} == {None}


async def test_a_read_that_failed_does_not_make_the_next_reading_look_fresh(tmp_path, autojump_clock):
    root, value = (
        plant(tmp_path, chip(0, BOOT_MS, A=0) | chip(1, BOOT_MS, B=0)),
        f"{DEVICES}/iio:device0/energy_value",
    )
    acts = {
        0.05: lambda: spoil(root, value),
        0.15: lambda: plant(tmp_path, chip(0, BOOT_MS + 50, A=9)),
    }
    rows = await collect(Odpm(root=root, hz=10), 0.25, acts)
    (reading,) = [r for r in rows["run.readings"] if r["count"] == BOOT_MS + 50]
    assert reading["not_before"] == 200_000_000 - 160_000_000


async def test_the_joules_are_those_of_the_phones_own_time(tmp_path, autojump_clock):
    """2 W for a second, then 5 W, of which reads at 10 Hz see what the chip had every 160 ms."""
    root = plant(tmp_path, chip(0, BOOT_MS, A=0))
    acts = {}
    for ms in range(160, 3000, 160):
        energy = 2000 * ms + max(0, 3000 * (ms - 960))
        acts[ms / 1e3] = lambda ms=ms, e=energy: plant(
            tmp_path, chip(0, BOOT_MS + ms, duration=78_102 + ms, A=e)
        )
    rows = await collect(Odpm(root=root), 3.1, acts)
    tick, energy = (np.array([row[name] for row in rows["x.odpm"]]) for name in ("tick", "energy"))
    facts = {**rails(rows)["A"], "sensor_of": "x.odpm"}
    data = RailData(facts, "x.boottime", 1e6, 1e8, tick, None, None, {"energy": energy}, {"energy": "uJ"})
    gaps = pa.Table.from_pylist([], pa.schema([]))
    (made,) = pieces(data, gaps)
    edges = made.positions(np.array([BOOT_MS, BOOT_MS + 960, BOOT_MS + 2560]))
    joules, *_ = made.sweep(edges)
    assert joules == pytest.approx([2 * 0.96, 5 * 1.6])


async def test_a_file_that_fails_is_a_gap_on_the_phones_clock_until_it_is_back(tmp_path, autojump_clock):
    root, value = plant(tmp_path, chip(0, BOOT_MS, A=0)), f"{DEVICES}/iio:device0/energy_value"
    acts = {
        1.05: lambda: plant(tmp_path, {value: ""}),
        2.05: lambda: plant(tmp_path, chip(0, BOOT_MS + 2000, A=9)),
    }
    rows = await collect(Odpm(root=root), 3, acts)
    (gap,) = rows["run.gaps"]
    assert (gap["clock_of"], gap["start"], gap["stop"]) == ("x.boottime", BOOT_MS, BOOT_MS + 2000)
    assert "energy_value" in gap["reason"]
    assert CLOCK.tick_ns == 1e6


async def test_a_reboot_in_between_leaves_a_gap_of_which_only_the_start_is_known(tmp_path, autojump_clock):
    root, value = plant(tmp_path, chip(0, BOOT_MS, A=5)), f"{DEVICES}/iio:device0/energy_value"
    acts = {1.05: lambda: plant(tmp_path, {value: ""}), 2.05: lambda: plant(tmp_path, chip(0, 20_000, A=9))}
    rows = await collect(Odpm(root=root), 3, acts)
    (gap,) = rows["run.gaps"]
    assert (gap["epoch_of"], gap["start"], gap["stop"]) == (0, BOOT_MS, BOOT_MS)
    assert [(row["epoch"], row["tick"]) for row in rows["x.odpm"]] == [(0, BOOT_MS), (1, 20_000)]


async def test_rails_and_what_the_phone_calls_them_are_recorded(tmp_path, autojump_clock):
    rows = await collect(Odpm(root=plant(tmp_path, Odpm.example()["tree"])), 0.5)
    assert {(r["kind"], r["boundary"], r["instrument"]) for r in rails(rows).values()} == {
        ("counter", "rail", "counter")
    }
    (fact,) = rows["run.facts"]
    assert json.loads(fact["value"])["s2mpg11-odpm"] == {
        "sampling_rate_hz": 125.0, "rails": {"S2S_VDD_G3D": {"name": "s2s_vdd_g3d", "subsystem": "Soc"}},
    }  # fmt: skip


def test_without_root_it_says_so(tmp_path):
    root = plant(tmp_path, chip(0, 5, A=1))
    spoil(root, f"{DEVICES}/iio:device0/energy_value")
    health = Odpm(root=root).check()
    assert (health.ok, health.cure) == (False, "root, or a userdebug build")
    with pytest.raises(DeviceError, match=r"expected energy_value to say t=.*energy_value"):
        Odpm(root=root).read()


def test_a_total_is_the_sum_of_the_rails_that_are_named_once_all_of_them_were_refreshed(tmp_path):
    phone = Phone(tmp_path)
    phone.sensor.total = ("A", "C")
    assert phone.read(chip(0, 1000, A=5, B=7), chip(1, 1002, C=9))[-1] == ("total", 1002, 14, 0)
    assert phone.read(chip(0, 1160, A=6, B=8)) == [("A", 1160, 6, 0), ("B", 1160, 8, 0)]
    assert phone.read(chip(1, 1162, C=12)) == [("C", 1162, 12, 0), ("total", 1162, 18, 0)]
    rails = {rail.name: (rail.boundary, rail.parent) for _, rail in phone.sensor.rails()}
    assert rails == {
        "A": ("rail", "total"), "B": ("rail", None), "C": ("rail", "total"), "total": ("board", None),
    }  # fmt: skip


def test_a_total_of_rails_that_are_not_there_is_refused(tmp_path):
    phone = Phone(tmp_path)
    phone.sensor.total = ("A", "X")
    with pytest.raises(DeviceError, match="total: expected the rails X, got A, B"):
        phone.read(chip(0, 1000, A=5, B=7))
