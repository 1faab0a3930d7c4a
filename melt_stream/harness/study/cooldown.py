"""Waiting until what will be measured has cooled down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import trio

from melt_stream.clock import monotonic
from melt_stream.engine import Ending, record
from melt_stream.harness.placed import placed, places
from melt_stream.harness.study.rules import Cooldown
from melt_stream.outlet import Outlet
from melt_stream.recipe import Plan
from melt_stream.sink import Sink
from melt_stream.sinks.latest import Thermometer


@dataclass(frozen=True)
class Cooled:
    """How a wait went."""

    ending: Ending
    seconds: float
    celsius: float | None = None
    """The hottest that counts, at the end; None where nothing told."""
    reached: bool | None = None
    """Whether it is cool enough; None where nobody asked for a temperature."""

    @property
    def said(self) -> dict[str, Any]:
        """For the run's manifest."""
        error = self.ending.error
        told = {"seconds": round(self.seconds, 3), "celsius": self.celsius, "reached": self.reached}
        return told | ({} if error is None else {"error": f"{type(error).__name__}: {error}"})


async def cool_down(wait: Cooldown, plan: Plan, sinks: tuple[Sink, ...] = ()) -> Cooled:
    """Wait as ``wait`` says; the collector is read as in a run, and nothing is kept of it.

    A signal, and a collector that fails, are in the ending.
    """
    thermometer, began = Thermometer(), monotonic()
    collectors: Mapping[str, Any] = {}
    if wait.collector:
        collectors = {wait.collector: placed(plan, places(plan.recipe)).collectors[wait.collector]}
    ending = await record(
        collectors,
        [thermometer, *sinks],
        {"cooldown": _Until(wait, thermometer)},
        devices={name: plan.devices[name] for name in collectors},
        seconds=max(wait.at_most_s, wait.seconds),
        start_timeout=plan.recipe.start_timeout_s,
    )
    celsius = thermometer.hottest(wait.label)
    reached = None if wait.until_c is None else celsius is not None and celsius <= wait.until_c
    return Cooled(ending, (monotonic() - began) / 1e9, celsius, reached)


@dataclass
class _Until:
    """A workload that ends when it is cool."""

    wait: Cooldown
    thermometer: Thermometer

    async def collect(self, out: Outlet) -> None:
        await trio.sleep(self.wait.seconds)
        while self.wait.until_c is not None:
            celsius = self.thermometer.hottest(self.wait.label)
            if celsius is not None and celsius <= self.wait.until_c:
                return
            await out.flushing()
