from pathlib import Path

import pytest

from melt_stream.collectors.rapl import Rapl, modulus
from melt_stream.errors import DeviceError, Transient
from tests.collectors.host_tree import collect, plant, rails, spoil

POWERCAP = "sys/class/powercap"
TREE = Rapl.example()["tree"]


def energies(rows):
    return {row["rail"]: row["energy"] for row in rows}


def zones(**names):
    """``intel_rapl_0="package-0"``: zone intel-rapl:0."""
    tree = {}
    for key, name in names.items():
        zone = (
            key.replace("intel_rapl_mmio", "intel-rapl-mmio")
            .replace("intel_rapl", "intel-rapl")
            .replace("_", ":")
        )
        tree |= {f"{POWERCAP}/{zone}/name": name, f"{POWERCAP}/{zone}/energy_uj": "1000"}
        tree |= {f"{POWERCAP}/{zone}/max_energy_range_uj": "262143328850"}
    return tree


def test_counts_are_kept_as_they_are(tmp_path):
    assert energies(Rapl(root=plant(tmp_path, TREE)).read()) == {
        "package-0": 21_943_781_231, "package-0-core": 9_943_781_231, "package-0-dram": 1_043_781_231,
        "psys": 41_943_781_231,
    }  # fmt: skip


async def test_rails_say_what_lies_in_what(tmp_path, autojump_clock):
    rows = await collect(Rapl(root=plant(tmp_path, TREE)), 0.2)
    declared = rails(rows)
    assert {name: (rail["boundary"], rail["parent"]) for name, rail in declared.items()} == {
        "psys": ("board", None),
        "package-0": ("package", "psys"),
        "package-0-core": ("rail", "package-0"),
        "package-0-dram": ("rail", "psys"),  # listed inside the package, but fed beside it
    }
    assert {rail["kind"] for rail in declared.values()} == {"counter"}
    assert declared["package-0"]["modulus"] == 262_143_328_911
    assert declared["package-0"]["resolution"] == pytest.approx(2**-14, rel=1e-4)
    assert {type(row["energy"]) for row in rows["x.rapl"]} == {int}


@pytest.mark.parametrize(
    ("largest", "wraps_at"),
    [
        (262_143_328_850, 262_143_328_911),  # (2^32 - 1) x 61.035 uJ
        (65_532_610_987, 65_532_611_002),  # (2^32 - 1) x 15.258 uJ: a server's dram, AMD
        (2**32 - 1, 2**32),
        (999_999, 1_000_000),
    ],
)
def test_a_counter_wraps_one_hardware_unit_after_its_largest_count(largest, wraps_at):
    assert modulus(largest) == wraps_at


def test_two_sockets_dies_and_another_way_to_the_same_counter(tmp_path):
    tree = zones(
        intel_rapl_0="package-0", intel_rapl_0_0="core", intel_rapl_1="package-1", intel_rapl_1_0="core",
        intel_rapl_mmio_0="package-0", intel_rapl_2="package-2-die-0", intel_rapl_3="package-2-die-0",
    )  # fmt: skip
    names = set(energies(Rapl(root=plant(tmp_path, tree)).read()))
    assert names == {
        "package-0", "package-0-core", "package-1", "package-1-core", "mmio-package-0",
        "package-2-die-0@intel-rapl:2", "package-2-die-0@intel-rapl:3",
    }  # fmt: skip


def test_a_tree_that_nests_its_zones_counts_each_once(tmp_path):
    root = Path(plant(tmp_path, zones(intel_rapl_0="package-0")))
    nested = f"{POWERCAP}/intel-rapl/intel-rapl:0/intel-rapl:0:0"
    plant(
        tmp_path, {f"{nested}/name": "core", f"{nested}/energy_uj": "5", f"{nested}/max_energy_range_uj": "9"}
    )
    (root / POWERCAP / "intel-rapl/intel-rapl:0/energy_uj").write_text("7")
    assert energies(Rapl(root=str(root)).read()) == {"package-0": 1000, "package-0-core": 5}


def test_unreadable_counters_are_an_error_with_the_cure(tmp_path):
    root = plant(tmp_path, zones(intel_rapl_0="package-0", intel_rapl_1="psys"))
    spoil(root, *(f"{POWERCAP}/intel-rapl:{i}/energy_uj" for i in (0, 1)))
    with pytest.raises(
        DeviceError, match=r"energy_uj: Is a directory; since 2020 .* only root .*try: .*udev"
    ) as raised:
        Rapl(root=root).read()
    assert not isinstance(raised.value, Transient)  # asking again does not help
    health = Rapl(root=root).check()
    assert (health.ok, "only root" in health.what) == (False, True)
    assert all(word in health.cure for word in ("chmod", "udev", "setcap", "root"))


async def test_one_unreadable_zone_has_no_rail(tmp_path, autojump_clock):
    root = plant(tmp_path, zones(intel_rapl_0="package-0", intel_rapl_0_0="core"))
    spoil(root, f"{POWERCAP}/intel-rapl:0:0/energy_uj")
    rows = await collect(Rapl(root=root), 0.2)
    assert list(rails(rows)) == ["package-0"]
    assert "1 of 2 zones: package-0" in Rapl(root=root).check().what


async def test_counters_that_vanish_for_a_while_leave_a_gap_and_nothing_invented(tmp_path, autojump_clock):
    root = plant(tmp_path, zones(intel_rapl_0="package-0"))
    path = f"{POWERCAP}/intel-rapl:0/energy_uj"
    rows = await collect(
        Rapl(hz=10, root=root),
        3,
        {1.05: lambda: spoil(root, path), 2.05: lambda: plant(tmp_path, {path: "5000"})},
    )
    assert {row["energy"] for row in rows["x.rapl"]} == {1000, 5000}
    (gap,) = rows["run.gaps"]
    assert "energy_uj" in gap["reason"]
    assert gap["lost_rows"] == pytest.approx(10, abs=1)


def test_doctor_says_that_there_is_none(tmp_path):
    health = Rapl(root=str(tmp_path)).check()
    assert health.what == f"no RAPL zone in {tmp_path}/{POWERCAP}"
    with pytest.raises(DeviceError, match="no RAPL zone"):
        Rapl(root=str(tmp_path)).read()
