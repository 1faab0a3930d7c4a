"""What is set for a run is set before the rest begins, or after, and put back the other way round."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import pytest
import trio

from melt_stream.engine import record
from melt_stream.errors import DeviceError
from melt_stream.outlet import Outlet
from melt_stream.testing import Keep, trio_now

run = partial(record, now=trio_now)


@dataclass
class Told:
    """Takes a second to begin, and another to end; says both."""

    name: str
    told: list[str]
    order: int = 0
    lasts: float = float("inf")
    fails: str = ""

    async def collect(self, out: Outlet) -> None:
        if self.fails == "begin":
            raise DeviceError("no")
        await trio.sleep(1)
        self.told.append(f"+{self.name}")
        out.ready()
        try:
            await trio.sleep(self.lasts)
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
            self.told.append(f"-{self.name}")
            if self.fails == "end":
                raise DeviceError("not put back")


@dataclass
class Work:
    told: list[str]
    fails: bool = False

    async def collect(self, _: Outlet) -> None:
        self.told.append("+work")
        await trio.sleep(1)
        if self.fails:
            raise DeviceError("the work failed")
        self.told.append("-work")


@dataclass
class Bench:
    told: list[str] = field(default_factory=list)

    def all(self, **changed):
        orders = {"usb": 1, "meter": 0, "sensor": 0, "screen": -1, "relay": -2}
        return {name: Told(name, self.told, order, **changed.get(name, {})) for name, order in orders.items()}


@pytest.mark.parametrize("fails", [False, True])
async def test_the_ends_come_in_the_opposite_order_also_where_the_work_fails(autojump_clock, fails):
    bench = Bench()
    ending = await run(bench.all(), [Keep()], {"work": Work(bench.told, fails)})
    assert sorted(bench.told[2:4]) == ["+meter", "+sensor"]
    assert [word for word in bench.told if word[1:] not in {"meter", "sensor"}] == [
        "+relay", "+screen", "+usb", "+work", *([] if fails else ["-work"]), "-usb", "-screen", "-relay",
    ]  # fmt: skip
    assert sorted(bench.told[-4:-2]) == ["-meter", "-sensor"]
    assert ("the work failed" in ending.reason) is fails


async def test_a_time_limit_and_a_cancellation_from_outside_keep_the_order(autojump_clock):
    bench = Bench()
    assert (await run(bench.all(), [Keep()], seconds=3.0)).reason == "time limit"
    assert (bench.told[0], bench.told[-1]) == ("+relay", "-relay")
    bench.told.clear()
    with trio.move_on_after(6.0):
        await run(bench.all(), [Keep()])
    assert bench.told[-5] == "-usb"
    assert bench.told[-2:] == ["-screen", "-relay"]


async def test_nothing_else_begins_where_a_condition_cannot_be_set(autojump_clock):
    bench = Bench()
    ending = await run(bench.all(screen={"fails": "begin"}), [Keep()], {"work": Work(bench.told)})
    assert bench.told == ["+relay", "-relay"]
    assert "collector 'screen' failed: no" in ending.reason


async def test_what_could_not_be_put_back_is_the_runs_error_and_the_rest_is_still_put_back(autojump_clock):
    bench = Bench()
    ending = await run(bench.all(usb={"fails": "end"}), [Keep()], {"work": Work(bench.told)})
    assert ending.reason == "workloads ended"
    assert str(ending.error) == "not put back"
    assert bench.told[-2:] == ["-screen", "-relay"]


async def test_one_that_is_never_ready_ends_the_run_in_time(autojump_clock):
    class Silent:
        order = -1

        async def collect(self, _: Outlet) -> None:
            await trio.sleep_forever()

    bench = Bench()
    ending = await run({"silent": Silent(), **bench.all()}, [Keep()], start_timeout=5.0)
    assert "none of 'silent'" in ending.reason
    assert bench.told == ["+relay", "+screen", "-screen", "-relay"]


async def test_conditions_alone_keep_no_run_going(autojump_clock):
    bench = Bench()
    ending = await run(
        bench.all(meter={"lasts": 2.0}, sensor={"lasts": 4.0}) | {"usb": Told("usb", bench.told, 1)}, [Keep()]
    )
    assert ending.reason == "collectors ended"
    assert bench.told[-3:] == ["-usb", "-screen", "-relay"]
