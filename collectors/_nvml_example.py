"""One made-up GPU, with the functions of ``pynvml`` that the collector calls: for trying it without one."""
# ruff: noqa: N802 - the names are the library's

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from melt_stream.clock import monotonic

NVML_SUCCESS = 0
NVML_ERROR_UNINITIALIZED, NVML_ERROR_INVALID_ARGUMENT, NVML_ERROR_NOT_SUPPORTED = 1, 2, 3
NVML_ERROR_NO_PERMISSION, NVML_ERROR_FUNCTION_NOT_FOUND, NVML_ERROR_GPU_IS_LOST = 4, 13, 15
NVML_FI_DEV_POWER_AVERAGE, NVML_FI_DEV_POWER_INSTANT = 185, 186
NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU, NVML_DEVICE_ARCH_AMPERE = 1, 2, 0, 7
MILLIWATTS = 72_000


class NVMLError(Exception):
    """What the library raises; ``value`` is one of the codes above."""

    def __init__(self, value: int) -> None:
        super().__init__(f"NVML error {value}")
        self.value = value


def nvmlInit() -> None:
    """Begin."""


def nvmlShutdown() -> None:
    """End."""


def nvmlSystemGetDriverVersion() -> str:
    """Return the version of the driver that is not there."""
    return "example"


def nvmlDeviceGetCount() -> int:
    """Return the number of GPUs."""
    return 1


def nvmlDeviceGetHandleByIndex(index: int) -> int:
    """Return what the other functions are given."""
    return index


def nvmlDeviceGetName(_: int) -> str:
    """Return the model's name."""
    return "Example GPU"


def nvmlDeviceGetUUID(handle: int) -> str:
    """Return the card's own name."""
    return f"GPU-{handle:08d}"


def nvmlDeviceGetTotalEnergyConsumption(_: int) -> int:
    """Return mJ: a steady 72 W since the host's monotonic clock began."""
    return monotonic() // 1_000_000_000 * MILLIWATTS


def nvmlDeviceGetFieldValues(_: int, fields: list[int]) -> list[Any]:
    """Return mW, for instant and average power alike."""
    return [SimpleNamespace(nvmlReturn=NVML_SUCCESS, value=SimpleNamespace(uiVal=MILLIWATTS)) for _ in fields]


def nvmlDeviceGetUtilizationRates(_: int) -> Any:
    """Return the part of the time in which kernels ran, and memory was used, in %."""
    return SimpleNamespace(gpu=35, memory=20)


def nvmlDeviceGetMemoryInfo(_: int) -> Any:
    """Return memory in bytes."""
    return SimpleNamespace(used=3 << 30, total=8 << 30)


def nvmlDeviceGetClockInfo(_: int, clock: int) -> int:
    """Return a clock in MHz; the memory's is not supported."""
    if clock == NVML_CLOCK_MEM:
        raise NVMLError(NVML_ERROR_NOT_SUPPORTED)
    return 1800


def nvmlDeviceGetTemperature(_: int, __: int) -> int:
    """Return degC."""
    return 54


def nvmlDeviceGetCurrentClocksThrottleReasons(_: int) -> int:
    """Return the reasons why its clocks are low, as bits: the power cap."""
    return 4
