"""nvidia-smi's loop, run where the GPUs are: what each driver calls power, several GPUs, and values that are none."""

from __future__ import annotations

import json
import shutil
import sys

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from melt_stream.collectors._nvidia_smi import cards, known, reading
from melt_stream.collectors._nvidia_smi_example import SHIM
from melt_stream.collectors.nvidia_smi import NvidiaSmi
from melt_stream.devices import Local, Place
from melt_stream.errors import ConfigError, DeviceError
from tests.collectors.collecting import collecting
from tests.emulators.board import board, needed, reached

bash = pytest.mark.skipif(shutil.which("bash") is None, reason="expected bash")
UUID = "GPU-0a1b2c3d-0000-4444-8888-00000000000"
OLD = [
    "index",
    "uuid",
    "name",
    "driver_version",
    "power.draw",
    "clocks.sm",
    "utilization.gpu",
    "clocks_throttle_reasons.active",
]


def shim(change=""):
    """The stand-in, changed by a line of Python."""
    before, after = SHIM.split("words = dict", 1)
    return f"{before}{change}\nwords = dict{after}"


def smi(change="", **fields):
    return NvidiaSmi(tool=[sys.executable, "-c", shim(change)], interval_ms=20, **fields)


async def rows_of(collector, enough=3):
    async with collecting(collector.on(Place(Local("server")))) as watched:
        await watched.until(lambda: len(watched.of("gpu")) >= enough)
    return watched


@bash
async def test_instant_and_average_power_are_streams_of_their_kind_on_the_servers_clock():
    watched = await rows_of(smi())
    kinds = {
        (r["sensor_of"], r["name"]): (r["kind"], r["window_ns"], r["boundary"], r["clock_of"])
        for r in watched.rows("run.rails")
    }
    assert kinds == {
        ("it.instant", "gpu0"): ("gauge", None, "board", "server.realtime"),
        ("it.average", "gpu0"): ("mean", 1e9, "board", "server.realtime"),
    }
    assert {row["watts"] for row in watched.of("instant")} == {72.31}
    assert {row["watts"] for row in watched.of("average")} == {70.02}
    state = {
        name: value for name, value in watched.of("gpu")[0].items() if name not in ("tick", "epoch", "t_u")
    }
    assert state == {
        "gpu": 0, "utilization": 35, "memory_utilization": 20, "celsius": 54, "sm_clock": 1.8e9, "memory_clock": None,
        "memory_used": 3 << 30, "memory_total": 8 << 30, "held_back": 4,
    }  # fmt: skip
    facts = {row["name"]: json.loads(row["value"]) for row in watched.rows("run.facts")}
    assert facts["gpus"] == {"gpu0": {"name": "NVIDIA Example 8000", "uuid": f"{UUID}1"}}
    assert facts["nvidia_driver"] == "570.00"


@bash
@pytest.mark.parametrize(
    ("name", "capability", "stream"),
    [
        ("NVIDIA GeForce RTX 2080", "7.5", "instant"),
        ("NVIDIA A100-SXM4-80GB", "8.0", "instant"),
        ("NVIDIA A40", "8.6", "average"),
        ("NVIDIA H100", "9.0", "average"),
        ("Tesla V100", None, "instant"),
    ],
)
async def test_an_old_drivers_one_number_means_what_its_chip_makes_it(name, capability, stream):
    fields = [*OLD, *(["compute_cap"] if capability else [])]
    change = (
        f"FIELDS = {fields}; GPUS[0].update({{'name': {name!r}, 'compute_cap': {capability!r}, 'power.draw': '50.00', "
        "'clocks_throttle_reasons.active': '0x0000000000000001'})"
    )
    watched = await rows_of(smi(change))
    assert {
        key: {row["watts"] for row in watched.of(key)} for key in ("instant", "average") if watched.of(key)
    } == {stream: {50.0}}
    assert {(row["held_back"], row["celsius"]) for row in watched.of("gpu")} == {(1, None)}


@bash
async def test_several_gpus_are_told_apart_by_their_uuid_and_one_that_has_no_power_is_no_rail():
    second = {
        "index": "1",
        "uuid": f"{UUID}2",
        "power.draw.instant": "[N/A]",
        "power.draw.average": "[Not Supported]",
        "utilization.gpu": "[Unknown Error]",
    }
    watched = await rows_of(smi(f"GPUS.append({{**GPUS[0], **{second}}}); GPUS.reverse()"), 6)
    assert (
        {row["rail"] for row in watched.of("instant")}
        == {rail["name"] for rail in watched.rows("run.rails")}
        == {"gpu0"}
    )
    assert {(row["gpu"], row["utilization"]) for row in watched.of("gpu")} == {(0, 35), (1, None)}
    (gpus,) = [json.loads(fact["value"]) for fact in watched.rows("run.facts") if fact["name"] == "gpus"]
    assert gpus["gpu1"]["uuid"] == f"{UUID}2"


@bash
async def test_a_gpu_that_takes_a_lost_ones_index_is_not_taken_for_it(tmp_path):
    mark = tmp_path / "lost"
    lost = f"""
import os
there, nap = os.path.exists({str(mark)!r}), time.sleep
if there: GPUS[0]["uuid"] = "{UUID}7"
time.sleep = lambda seconds: nap(seconds) if there or not os.path.exists({str(mark)!r}) else sys.exit()
"""
    async with collecting(smi(lost).on(Place(Local("server")))) as watched:
        await watched.until(lambda: len(watched.of("instant")) >= 2)
        assert {row["rail"] for row in watched.of("instant")} == {"gpu0"}
        mark.touch()  # the loop ends, as it does when the driver is loaded anew
        await watched.until(lambda: any(row["rail"] != "gpu0" for row in watched.of("instant")), seconds=30)
    assert {row["rail"] for row in watched.of("instant")} == {"gpu0", f"{UUID}7"}
    assert "got its end" in watched.gaps("instant")[0]["reason"]


@bash
@pytest.mark.parametrize(
    ("collector", "said"),
    [
        (
            NvidiaSmi(tool=["no-such-smi"]),
            r"server: expected nvidia-smi, got .*not found; try: NVIDIA's driver",
        ),
        (
            smi(
                "print('No devices were found') if '--help-query-gpu' not in sys.argv else None; GPUS = [] if '--help-query-gpu' not in sys.argv else GPUS"
            ),
            r"expected GPUs from nvidia-smi, got 'No devices were found'",
        ),
        (
            smi("print('NVIDIA-SMI has failed', file=sys.stderr); sys.exit(9)"),
            r"expected nvidia-smi, got NVIDIA-SMI has failed",
        ),
        (smi("FIELDS = ['name']"), r"expected fields of nvidia-smi, got none in its help"),
    ],
)
async def test_what_is_missing_is_named(collector, said):
    with pytest.RaisesGroup(pytest.RaisesExc(DeviceError, match=said), flatten_subgroups=True):
        async with collecting(collector.on(Place(Local("server")))):
            await trio.sleep_forever()


def test_an_empty_command_is_refused():
    with pytest.raises(ConfigError, match="tool: expected a program"):
        NvidiaSmi(tool=[])


@needed
@pytest.mark.skipif(
    shutil.which("python3", path="/usr/bin:/bin") is None, reason="expected python3 on the machine"
)
async def test_over_a_real_sshd():
    async with board() as place:
        collector = NvidiaSmi(tool=["python3", "-c", SHIM], interval_ms=20).on(Place(reached(place)))
        async with collecting(collector) as watched:
            await watched.until(lambda: len(watched.of("average")) >= 5)
    assert {source.clock for key, source in watched.sources.items() if not key.startswith("run.")} == {
        "orin.realtime"
    }
    assert {row["epoch"] for row in watched.of("gpu")} == {0}


GOOD = f"{UUID}1, 72.31, [N/A], 35, 0x0000000000000004"
FIELDS = ["power.draw.instant", "power.draw.average", "utilization.gpu", "clocks_event_reasons.active"]


def test_fields_are_those_of_the_help_and_the_newer_of_two_that_mean_the_same():
    text = "".join(
        f'"{name}"\nWords.\n' for name in (*OLD, "clocks_event_reasons.active", "power.draw.instant")
    )
    assert known(text) == [
        "power.draw.instant",
        "utilization.gpu",
        "clocks.sm",
        "clocks_event_reasons.active",
    ]
    assert known("nothing") == []


@given(st.text(max_size=200), st.integers(0, len(GOOD)))
def test_no_line_makes_the_parser_fail(junk, at):
    for text in (junk, GOOD[:at] + junk + GOOD[at:], GOOD[:at]):
        if (found := reading(text, FIELDS)) is not None:
            assert all(0 <= watts < 1e12 for watts in found.watts.values())
            assert all(value is None or value >= 0 for value in found.state.values())
        cards(text)
