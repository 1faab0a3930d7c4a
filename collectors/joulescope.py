"""Joulescope JS110 and JS220, through their maker's driver: current, voltage, power and four inputs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import KW_ONLY, dataclass, field
from typing import Annotated, Any, Literal, TypeVar

import pyarrow as pa
import trio
from annotated_types import Ge, Le

from melt_stream.collector import Health
from melt_stream.collectors._driver import driver
from melt_stream.collectors._joulescope import HZ
from melt_stream.collectors._joulescope_rows import CLOCK, INPUTS, SIGNALS, Hearing, Writer
from melt_stream.errors import ConfigError, DeviceError, Transient
from melt_stream.outlet import Outlet
from melt_stream.rail import Boundary, Rail
from melt_stream.stream import Column, Stream
from melt_stream.units import A, V, W

T = TypeVar("T")
_COLUMNS = {
    "volts": Column(V, pa.float32()),
    "amps": Column(A, pa.float32()),
    "watts": Column(W, pa.float32()),
}
LEAVE_S = 1.5
STREAMS = INPUTS
SOURCE = "its maker's accuracy figures were not at hand"


@dataclass
class Joulescope:
    """Records until cancelled.

    Raises ``Transient`` where it is unplugged or falls silent, ``DeviceError`` where it is none, or another program has it.
    """

    _: KW_ONLY
    device: str = ""
    """Its serial number, or the driver's path for it (``u/js220/000123``); needed where there are several."""
    hz: Annotated[int, Ge(1), Le(HZ)] = 10_000
    """Samples a second, a divisor of 2,000,000 that the driver has; it filters before it leaves samples out."""
    gpi: list[Literal[0, 1, 2, 3]] = field(default_factory=list)
    """Inputs that are recorded."""
    boundary: Boundary = "dc_in"
    """Where it is wired."""
    rail: str = "main"
    optional: bool = False
    library: Any = "pyjoulescope_driver"
    """The module that has the driver, by name, or an object with its ``Driver``."""

    def __post_init__(self) -> None:
        if HZ % self.hz:
            raise ConfigError(f"hz: expected a divisor of {HZ}, got {self.hz}")
        columns: dict[str, Any] = _COLUMNS
        self.main = Stream("main", clock=CLOCK, period_ns=1e9 / self.hz, **columns)

    @staticmethod
    def example() -> dict[str, Any]:
        """A made-up driver."""
        library = "melt_stream.collectors._joulescope_example"
        return {"kind": "plain", "config": {"library": library, "hz": 1000, "gpi": [0]}}

    def prepare(self) -> None:
        """Import the driver, before anything is measured."""
        driver(self.library, "Joulescope", "joulescope")

    def check(self) -> Health:
        """List the instruments that the driver finds."""
        try:
            driver = _made(self.library)
        except DeviceError as exc:
            what, _, cure = str(exc).partition("; try: ")
            return Health(False, what, cure)
        try:
            paths = driver.device_paths()
        finally:
            driver.finalize()
        if not paths:
            return Health(False, "no Joulescope on USB", "plug it in; on Linux its udev rules are needed")
        return Health(True, ", ".join(paths))

    async def collect(self, out: Outlet) -> None:
        hearing = Hearing(out.now)
        async with self._opened(hearing.hear) as (driver, path):
            out.rail(self.main, Rail(self.rail, self.boundary, "gauge", instrument="meter", source=SOURCE))
            out.fact("device", path)
            before = out.now()
            await _call(path, lambda: self._start(driver, path))
            writer = Writer(out, path, self.main, HZ // self.hz, list(self.gpi), before)
            try:
                await writer.follow(hearing)
            finally:
                writer.close()

    @asynccontextmanager
    async def _opened(self, hear: Callable[[str, Any], None]) -> AsyncIterator[tuple[Any, str]]:
        """Open the instrument and listen to it, for the time of the body. All calls of the driver may block."""
        driver = await _call("the driver", lambda: _made(self.library))
        try:
            path = self._choose(await _call("the driver", driver.device_paths))
            await _call(path, lambda: self._open(driver, path, hear))
            try:
                yield driver, path
            finally:
                await _leave(lambda: self._stop(driver, path))
        finally:
            await _leave(driver.finalize)

    def _choose(self, paths: list[str]) -> str:
        fit = [path for path in paths if self.device in ("", path, path.rpartition("/")[2])]
        if len(fit) == 1:
            return fit[0]
        wanted = f"Joulescope {self.device!r}" if self.device else "one Joulescope"
        raise (DeviceError if fit else Transient)(
            f"expected {wanted} on USB, got {', '.join(paths) or 'none'}; plug it in, or say which with device = '...'"
        )

    def _open(self, driver: Any, path: str, hear: Callable[[str, Any], None]) -> None:
        driver.open(path, mode="defaults")
        driver.publish(f"{path}/h/fs", self.hz)
        if "js110" in path:
            driver.publish(f"{path}/s/i/range/select", "auto")
        else:
            driver.publish(f"{path}/s/i/range/mode", "auto")
        driver.subscribe("@/!remove", ["pub"], hear)
        for name in self._topics():
            driver.subscribe(f"{path}/s/{name}/!data", ["pub"], hear)

    def _topics(self) -> list[str]:
        return [*SIGNALS, *(f"gpi/{pin}" for pin in self.gpi)]

    def _start(self, driver: Any, path: str) -> None:
        for name in self._topics():
            driver.publish(f"{path}/s/{name}/ctrl", 1)

    def _stop(self, driver: Any, path: str) -> None:
        for name in self._topics():
            driver.publish(f"{path}/s/{name}/ctrl", 0, timeout=0.25)
        driver.close(path)


async def _call(what: str, blocking: Callable[[], T]) -> T:
    """Call the driver in a thread; its errors become ours."""
    try:
        return await trio.to_thread.run_sync(blocking)
    except TimeoutError as exc:
        raise Transient(f"{what}: expected the driver's answer, got {exc}; is it plugged in?") from exc
    except (RuntimeError, ValueError, OSError) as exc:
        raise DeviceError(
            f"{what}: expected the driver to do it, got {exc}; does another program have the instrument?"
        ) from exc


async def _leave(blocking: Callable[[], object]) -> None:
    """Call the driver however the body ended, for a limited time; it may be gone: what ended the recording says so."""
    with trio.move_on_after(LEAVE_S, shield=True), suppress(RuntimeError, TimeoutError, ValueError, OSError):
        await trio.to_thread.run_sync(blocking, abandon_on_cancel=True)


def _made(library: Any) -> Any:
    """Return a driver. Raises ``DeviceError``."""
    try:
        return driver(library, "Joulescope", "joulescope").Driver()
    except (RuntimeError, OSError) as exc:
        raise DeviceError(
            f"Joulescope: expected its driver to begin, got {exc}; try: another USB port"
        ) from exc
