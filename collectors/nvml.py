"""Energy, power and state of NVIDIA GPUs, through the driver's library."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa

from melt_stream.collector import Health
from melt_stream.collectors._driver import driver
from melt_stream.collectors._nvidia import GAIN, SOURCE, average, gauge, instant, mean, plain_is_mean, state
from melt_stream.errors import DeviceError, Transient
from melt_stream.outlet import Outlet, Row
from melt_stream.poller import Poller
from melt_stream.rail import Rail
from melt_stream.stream import Column, Stream
from melt_stream.units import Unit

ENERGY = Stream("nvml_energy", rail=str, energy=Column(Unit("mJ"), pa.int64()))
"""The driver's counter since it was loaded (Volta and later); it moves every 20 to 100 ms."""
INSTANT, AVERAGE, GPU = instant(), average(), state()
_LOST = ("NVML_ERROR_GPU_IS_LOST", "NVML_ERROR_UNINITIALIZED")
_NEVER = (
    "NVML_ERROR_NOT_SUPPORTED", "NVML_ERROR_NO_PERMISSION", "NVML_ERROR_FUNCTION_NOT_FOUND",
    "NVML_ERROR_INVALID_ARGUMENT",
)  # fmt: skip


class Gpu(NamedTuple):
    """A GPU as the library knows it."""

    number: int
    handle: Any
    name: str
    uuid: str

    @property
    def rail(self) -> str:
        """Name of its rail, in every stream."""
        return f"gpu{self.number}"


@dataclass
class Nvml(Poller):
    """Every GPU's energy counter, instant and average power (a stream each), and its state.

    What a model does not support is absent: null, or no rail; never zero. Raises ``DeviceError`` where the package,
    the driver or a GPU is missing.
    """

    _: KW_ONLY
    library: Any = "pynvml"
    """The module that calls the driver, by name, or an object with its functions."""

    stream = GPU
    _lib: Any = field(default=None, init=False, repr=False, compare=False)
    _gpus: list[Gpu] = field(default_factory=list, init=False, repr=False, compare=False)
    _never: set[tuple[Any, ...]] = field(default_factory=set, init=False, repr=False, compare=False)
    _seen: set[tuple[Stream, str]] = field(default_factory=set, init=False, repr=False, compare=False)

    def prepare(self) -> None:
        """Import the library, before anything is measured."""
        driver(self.library, "NVML", "nvml")

    async def collect(self, out: Outlet) -> None:
        try:
            await super().collect(out)
        finally:
            self._close()

    def read(self) -> list[tuple[Stream, Row]]:
        if not self._gpus:
            self._open()
        rows = [row for gpu in self._gpus for row in self._rows(gpu)]
        measured = {(stream, row["rail"]) for stream, row in rows if "rail" in row}
        self._seen = self._seen | measured  # a new one, since another thread reads it
        return rows

    def _rows(self, gpu: Gpu) -> Iterator[tuple[Stream, Row]]:
        if (energy := self._ask(gpu, "nvmlDeviceGetTotalEnergyConsumption")) is not None:
            yield ENERGY, {"rail": gpu.rail, "energy": energy}
        for stream, milliwatts in self._powers(gpu):
            yield stream, {"rail": gpu.rail, "watts": milliwatts * 1e-3}
        yield GPU, {"gpu": gpu.number, **self._state(gpu)}

    def _powers(self, gpu: Gpu) -> Iterator[tuple[Stream, int]]:
        """Instant and average power, as fields; drivers before 530 have one number, whose meaning depends on the chip."""
        lib = self._lib
        fields = [lib.NVML_FI_DEV_POWER_INSTANT, lib.NVML_FI_DEV_POWER_AVERAGE]
        values = self._ask(gpu, "nvmlDeviceGetFieldValues", fields) or []
        good = [
            (stream, value.value.uiVal)
            for stream, value in zip((INSTANT, AVERAGE), values, strict=False)
            if value.nvmlReturn == lib.NVML_SUCCESS
        ]
        if not good and (usage := self._ask(gpu, "nvmlDeviceGetPowerUsage")) is not None:
            good = [(AVERAGE if self._usage_is_mean(gpu) else INSTANT, usage)]
        yield from good

    def _usage_is_mean(self, gpu: Gpu) -> bool:
        architecture = self._ask(gpu, "nvmlDeviceGetArchitecture")
        is_new = architecture is not None and architecture >= self._lib.NVML_DEVICE_ARCH_AMPERE
        return plain_is_mean(gpu.name, is_new=is_new)

    def _state(self, gpu: Gpu) -> Row:
        lib = self._lib
        load, memory = (
            self._ask(gpu, "nvmlDeviceGetUtilizationRates"),
            self._ask(gpu, "nvmlDeviceGetMemoryInfo"),
        )
        sm, mem = (
            self._ask(gpu, "nvmlDeviceGetClockInfo", c) for c in (lib.NVML_CLOCK_SM, lib.NVML_CLOCK_MEM)
        )
        return {
            "utilization": getattr(load, "gpu", None),
            "memory_utilization": getattr(load, "memory", None),
            "celsius": self._ask(gpu, "nvmlDeviceGetTemperature", lib.NVML_TEMPERATURE_GPU),
            "sm_clock": None if sm is None else sm * 1e6,
            "memory_clock": None if mem is None else mem * 1e6,
            "memory_used": getattr(memory, "used", None),
            "memory_total": getattr(memory, "total", None),
            "held_back": self._ask(gpu, "nvmlDeviceGetCurrentClocksThrottleReasons"),
        }

    def _ask(self, gpu: Gpu, function: str, *args: Any) -> Any:
        """Call the library; None where this GPU cannot tell, which is not asked again."""
        question = (gpu.number, function, *map(str, args))
        if question in self._never:
            return None
        try:
            return getattr(self._lib, function)(gpu.handle, *args)
        except self._lib.NVMLError as exc:
            code = exc.value
            if code in self._codes(_NEVER):
                self._never.add(question)
                return None
            kind = DeviceError if code in self._codes(_LOST) else Transient
            raise kind(f"{gpu.rail} ({gpu.name}): {function}: {exc}") from exc

    def _codes(self, names: Iterable[str]) -> set[int]:
        return {getattr(self._lib, name) for name in names}

    def _open(self) -> None:
        lib = self._lib = driver(self.library, "NVML", "nvml")
        try:
            lib.nvmlInit()
        except lib.NVMLError as exc:
            raise DeviceError(
                f"NVML: expected NVIDIA's driver, got {exc!s}; try: an NVIDIA GPU with its driver, which nvidia-smi shows"
            ) from exc
        try:
            self._gpus = [_gpu(lib, number) for number in range(lib.nvmlDeviceGetCount())]
        except lib.NVMLError as exc:
            raise DeviceError(
                f"NVML: cannot list the GPUs: {exc}; try: nvidia-smi, and its permissions"
            ) from exc
        if not self._gpus:
            lib.nvmlShutdown()
            raise DeviceError("NVML: the driver is there, but no GPU; try: nvidia-smi -L")

    def _close(self) -> None:
        if self._gpus:
            self._gpus = []
            self._lib.nvmlShutdown()

    def rails(self) -> Iterable[tuple[Stream, Rail]]:
        for stream, name in sorted(self._seen, key=lambda seen: (seen[0].name, seen[1])):
            yield stream, _RAILS[stream.name](name)

    def facts(self) -> Mapping[str, Any]:
        gpus = {gpu.rail: {"name": gpu.name, "uuid": gpu.uuid} for gpu in self._gpus}
        return {"gpus": gpus, "nvidia_driver": self._lib.nvmlSystemGetDriverVersion()}

    def check(self) -> Health:
        try:
            self._open()
            streams = sorted({stream.name for stream, _ in self.read()})
            names = ", ".join(gpu.name for gpu in self._gpus)
        except DeviceError as exc:
            what, _, cure = str(exc).partition("; try: ")
            return Health(False, what, cure)
        finally:
            self._close()
        return Health(True, f"{names}: {', '.join(streams)}")

    @staticmethod
    def example() -> dict[str, Any]:
        return {"kind": "plain", "config": {"library": "melt_stream.collectors._nvml_example"}}


def _energy(name: str) -> Rail:
    return Rail(name, "board", "counter", gain=GAIN, resolution=1e-3, instrument="counter", source=SOURCE)


_RAILS = {"nvml_energy": _energy, "instant": gauge, "average": mean}


def _gpu(lib: Any, number: int) -> Gpu:
    handle = lib.nvmlDeviceGetHandleByIndex(number)
    return Gpu(number, handle, lib.nvmlDeviceGetName(handle), lib.nvmlDeviceGetUUID(handle))
