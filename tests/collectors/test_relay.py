"""A relay: one at a time, checked, put back whatever happens, and never switched by two recorders."""

from __future__ import annotations

import signal

import pytest
import trio

from melt_stream.collectors._alone import alone
from melt_stream.collectors._guard import guarding
from melt_stream.collectors.relay import Relay
from melt_stream.devices import Local
from melt_stream.errors import ConfigError, DeviceError, Transient
from tests.collectors.holding import Bench, Recorder, held, stages


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path, "open")


def relay(bench, channel="phone", **changed):
    known = {
        "channels": {name: bench.words(name) for name in ("phone", "tablet")}, "open": bench.words("open"),
        "state": bench.words("state"), "settle_s": 0.0, "name": str(bench.folder), "patience_s": 10.0,
    }  # fmt: skip
    return Relay(channel, **known | changed)


@pytest.mark.parametrize("before", ["open", "tablet"])
async def test_it_connects_one_and_puts_back_what_was_connected(bench, before):
    bench.position = before
    seen = []
    ending, keep = await held(relay(bench), lambda: seen.append(bench.position))
    assert (ending.reason, ending.error) == ("workloads ended", None)
    assert seen == ["phone"]
    assert bench.position == before
    assert bench.switched() == ["open", "phone", "open", *([before] if before != "open" else [])]
    assert stages(keep) == {"before": [before], "during": ["phone"], "end": ["phone"], "after": [before]}
    facts = {row["name"]: row["value"] for row in keep.rows("run.facts")}
    assert (facts["before"], facts["after"]) == (f'{{"{bench.folder}": "{before}"}}',) * 2


async def test_what_is_connected_already_is_not_switched(bench):
    bench.position = "phone"
    ending, keep = await held(relay(bench))
    assert ending.error is None
    assert bench.switched() == []
    assert stages(keep) == {"before": ["phone"], "during": ["phone"], "after": ["phone"]}


async def test_it_is_put_back_where_the_workload_fails(bench):
    ending, _ = await held(relay(bench), lambda: 1 / 0)
    assert isinstance(ending.error, ZeroDivisionError)
    assert bench.position == "open"


async def test_nothing_is_switched_where_the_state_cannot_be_read(bench):
    for said in ("", "phone and tablet"):
        bench.position = said
        ending, _ = await held(relay(bench))
        assert "not one; see `states`; nothing is set without it" in str(ending.error)
    ending, _ = await held(relay(bench, state=["false"]))
    assert "false: expected exit status 0, got 1" in str(ending.error)
    assert bench.switched() == []


async def test_a_relay_that_does_not_break_makes_nothing(bench):
    bench.position = "tablet"
    bench.stuck.touch()
    ending, _ = await held(relay(bench, patience_s=0.3))
    assert "expected output with" in str(ending.error)
    assert set(bench.switched()) == {"open"}
    assert bench.position == "tablet"


async def test_what_cannot_be_put_back_is_an_error_with_the_command_to_run(bench, caplog):
    ending, _ = await held(relay(bench), bench.stuck.touch)
    assert ending.reason == "workloads ended"
    by_hand = f"run by hand: /bin/sh {bench.script} open"
    assert f"as it was (open), got: it is phone; {by_hand}" in str(ending.error)
    assert by_hand in caplog.text


async def test_a_relay_that_changes_in_the_run_is_told(bench, caplog):
    ending, keep = await held(relay(bench), lambda: setattr(bench, "position", "tablet"))
    assert ending.error is None
    assert stages(keep)["end"] == ["tablet"]
    assert "was tablet at the end, not phone any more" in caplog.text
    assert bench.position == "open"


async def test_without_a_state_it_is_opened_afterwards(bench):
    ending, keep = await held(relay(bench, state=[]))
    assert ending.error is None
    assert bench.switched() == ["open", "phone", "open"]
    assert stages(keep) == {"during": ["phone"]}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"channel": "watch"}, "channel: expected one of"),
        ({"states": {"watch": "x"}}, "states: expected 'open' or names of channels"),
        ({"states": {"phone": "("}}, r"states\.phone: expected a regular expression"),
        ({"open": []}, "expected commands, got an empty one"),
        ({"channels": {"open": ["true"], "phone": ["true"]}}, "expected other names than 'open'"),
    ],
)
def test_a_wrong_recipe_is_refused(bench, changed, said):
    with pytest.raises(ConfigError, match=said):
        relay(bench, **changed)


def section(bench, patience_s=10.0):
    made = relay(bench)
    quoted = {name: str(words).replace("'", '"') for name, words in made.channels.items()}
    return f"""
[collectors.relay]
channel = "phone"
name = "{made.name}"
settle_s = 0.0
patience_s = {patience_s}
open = {bench.words("open")}
state = {bench.words("state")}
channels = {{ phone = {quoted["phone"]}, tablet = {quoted["tablet"]} }}
""".replace("'", '"')


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_it_is_put_back_where_the_recorder_is_ended_or_killed(bench, number):
    recorder = Recorder(bench.folder, section(bench))
    assert bench.position == "phone"
    recorder.end(number)
    assert bench.position == "open"


def test_a_guard_that_cannot_put_back_says_what_to_run(bench):
    recorder = Recorder(bench.folder, section(bench, patience_s=0.5))
    bench.script.unlink()
    said = recorder.end(signal.SIGKILL)
    assert "the recorder was killed; host: expected to put back" in said
    assert f"run by hand: /bin/sh {bench.script} open" in said


async def test_a_second_recorder_waits_and_switches_nothing(bench):
    recorder = await trio.to_thread.run_sync(Recorder, bench.folder, section(bench))
    try:
        switched = bench.switched()
        ending, _ = await held(relay(bench, "tablet"), start_timeout=0.5)
        assert "held by another recorder" in ending.reason
        assert bench.switched() == switched
        assert bench.position == "phone"
    finally:
        recorder.end(signal.SIGKILL)
    ending, keep = await held(relay(bench, "tablet"))
    assert ending.error is None
    assert stages(keep)["before"] == ["open"]


async def test_the_lock_is_the_guards_as_well(tmp_path):
    with alone("relay x", tmp_path) as lock:
        guarded = guarding(Local(), 1.0, (lock,))
        await guarded.__aenter__()
    with pytest.raises(Transient, match="held by another recorder"), alone("relay x", tmp_path):
        pass
    await guarded.__aexit__(None, None, None)
    with alone("relay x", tmp_path), alone("relay y", tmp_path):
        pass


async def test_a_lock_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "melt_stream_x.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DeviceError, match="x: expected a lock at"), alone("x", tmp_path):
        pass
