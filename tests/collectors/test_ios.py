"""An iPhone's gauge through a stand-in of pymobiledevice3: refreshes, repeats, signs, and answers that are none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melt_stream.collectors.ios import Ios, gauge
from melt_stream.errors import ConfigError, DeviceError
from tests.collectors.collecting import collecting

RECORDED = Path(__file__).parents[3] / "shared/traces/llm_profiler/ios/monitor/results/iphone14"
ENTRY = {
    "AppleRawCurrentCapacity": 1574, "BatteryInstalled": True, "CurrentCapacity": 57, "ExternalConnected": False, "InstantAmperage": -412,
    "IsCharging": False, "PowerTelemetryData": {"SystemLoad": 1650, "BatteryPower": 1650}, "Temperature": 2950, "UpdateTime": 1744028643,
    "Voltage": 3908,
}  # fmt: skip


def printed(**changed):
    return json.dumps(ENTRY | changed, indent=4).encode()


def test_the_registrys_entry_in_volts_and_amperes():
    update, row = gauge(printed())
    assert update == 1744028643
    assert row == {
        "rail": "battery", "volts": pytest.approx(3.908), "amps": 0.412, "charging": False, "plugged": False, "capacity": 57.0,
        "remaining": 1574.0, "celsius": 29.5, "load": 1.65, "reported": -412,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "amps", "reported"),
    [
        ({"InstantAmperage": 18446744073709551204}, 0.412, -412),
        ({"InstantAmperage": 900, "IsCharging": True}, None, 900),
        ({"ExternalConnected": True}, None, -412),
        ({"InstantAmperage": None}, None, None),
        ({"InstantAmperage": "x"}, None, None),
    ],
)
def test_a_current_counts_while_it_drains(changed, amps, reported):
    row = gauge(printed(**changed)).row
    assert (row["amps"], row["reported"]) == (amps, reported)


@pytest.mark.parametrize(
    "output",
    [b"", b"[]", b"{", b"null {}", printed(UpdateTime=None), printed(UpdateTime=1 << 60), b"{" * 5000],
)
def test_what_is_no_entry_is_none(output):
    assert gauge(output) is None


@given(
    st.dictionaries(
        st.sampled_from(sorted(ENTRY)),
        st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.floats(),
    )
)
def test_no_entry_does_harm(entry):
    if (got := gauge(json.dumps(ENTRY | entry).encode())) is not None:
        assert all(
            value is None or isinstance(value, str) or abs(value) < 1 << 64 for value in got.row.values()
        )


@pytest.mark.skipif(not RECORDED.exists(), reason="expected ../shared/traces/llm_profiler")
def test_the_recorded_polls_of_an_iphone_14_are_fewer_refreshes():
    for path in sorted(RECORDED.glob("*/raw.json")):
        polls = json.loads(path.read_text())
        got = [gauge(json.dumps(poll).encode()) for poll in polls]
        assert all(one is not None and 3.0 < one.row["volts"] < 4.5 for one in got)
        assert 2 <= len({one.update for one in got}) < len(polls)


def stand_in(tmp_path, *answers, first=0):
    """A program that answers the n-th question with the n-th answer, then with the last again and again."""
    (tmp_path / "asked").write_text(str(first))
    for number, answer in enumerate(answers):
        (tmp_path / str(number)).write_bytes(answer)
    script = (
        f'cd {tmp_path}; n=$(cat asked); echo $((n + 1)) >asked; [ -e "$n" ] || n={len(answers) - 1}; echo "$@" >words; '
        'cat "$n"; [ -s "$n" ] || { echo "no device" >&2; exit 1; }'
    )
    return ("sh", "-c", script, "pymobiledevice3")


async def test_a_refresh_is_a_row_a_repeat_is_none_and_the_iphones_clock_is_bounded_by_the_questions(
    tmp_path,
):
    told = [
        printed(),
        printed(),
        printed(UpdateTime=1744028663, Voltage=3919),
        printed(UpdateTime=1744028663),
    ]
    async with collecting(Ios(command=stand_in(tmp_path, *told), udid="00008120-X", hz=1.0)) as keep:
        await keep.until(
            lambda: int((tmp_path / "asked").read_text()) >= 4 and len(keep.of("ios_battery")) >= 2
        )
    rows = keep.of("ios_battery")
    assert [(row["tick"], row["volts"]) for row in rows] == [
        (1744028643, pytest.approx(3.908)), (1744028663, pytest.approx(3.919)),
    ]  # fmt: skip
    assert (tmp_path / "words").read_text().split() == [
        "diagnostics",
        "battery",
        "single",
        "--udid",
        "00008120-X",
    ]
    first, second = (row for row in keep.rows("run.readings") if row["clock_of"] == "it.gauge")
    assert (first["count"], first["not_before"], first["kind"]) == (1744028643, None, "arrival")
    assert (
        0.9e9 < second["not_after"] - second["not_before"] < 8e9
    )  # the question before was asked a second earlier
    assert {(rail["name"], rail["boundary"], rail["kind"]) for rail in keep.rows("run.rails")} == {
        ("battery", "battery", "gauge")
    }


async def test_an_iphone_that_does_not_answer_meanwhile_leaves_a_gap(tmp_path):
    told = [printed(), b"", printed(UpdateTime=1744028683)]
    async with collecting(Ios(command=stand_in(tmp_path, *told), hz=1.0)) as keep:
        await keep.until(lambda: len(keep.of("ios_battery")) >= 2)
    (gap,) = keep.gaps("ios_battery")
    assert (gap["start"], gap["stop"], gap["reason"]) == (1744028643, 1744028683, "the iPhone did not answer")


async def test_no_program_and_no_iphone_are_told_apart(tmp_path):
    with pytest.raises(
        ConfigError, match="there is no program 'no-such-program'; try: pipx install pymobiledevice3"
    ):
        Ios(command=("no-such-program",)).prepare()
    with pytest.raises(BaseExceptionGroup) as caught:
        async with collecting(Ios(command=stand_in(tmp_path, b""))) as keep:
            await keep.until(lambda: False)
    assert caught.group_contains(DeviceError, match="exit status 1 and: no device; is the iPhone connected")
