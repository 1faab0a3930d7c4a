"""Look-alikes of Android's tools, as scripts for the phone's shell: they print what its insides were last written as."""

from __future__ import annotations

import sys

INSIDE = "data/.inside"
"""What hardware and services hold, whether or not the phone's /sys shows it."""
_DUMPSYS = r"""#!@SHELL@
# dumpsys battery | thermalservice
case $1 in
battery | thermalservice) exec cat "@ROOT@/@INSIDE@/$1" ;;
*) echo "Can't find service: $1"; exit 1 ;;
esac
"""
_PERFETTO = r"""#!@SHELL@
# perfetto --txt -c - -o -; its CLOCK_BOOTTIME is the kernel's, whatever sets its wall clock off
export FAKETIME_DONT_FAKE_MONOTONIC=1 PYTHONPATH='@PATH@'
exec '@PYTHON@' -m melt_stream.emulators._perfetto_tool "@ROOT@/@INSIDE@" "$@"
"""
STATUS = {"Charging": 2, "Discharging": 3, "Not charging": 4, "Full": 5}


def tools(root: str, shell: str) -> dict[str, str]:
    """Return each tool's name and script; ``root`` is where it finds the phone's files, empty where they are in their place."""
    words = {
        "@ROOT@": root, "@SHELL@": shell, "@INSIDE@": INSIDE, "@PYTHON@": sys.executable,
        "@PATH@": ":".join(path for path in sys.path if path),
    }  # fmt: skip
    made = {}
    for name, script in (("dumpsys", _DUMPSYS), ("perfetto", _PERFETTO)):
        text = script
        for word, value in words.items():
            text = text.replace(word, value)
        made[name] = text
    return made


def battery_text(
    status: str, *, plugged: bool, volts: float, capacity: int, celsius: float, charge: int
) -> str:
    """What ``dumpsys battery`` prints, as Android 13 does."""
    return (
        "Current Battery Service state:\n"
        f"  AC powered: false\n  USB powered: {str(plugged).lower()}\n  Wireless powered: false\n  Dock powered: false\n"
        f"  Max charging current: 0\n  Max charging voltage: 0\n  Charge counter: {charge}\n"
        f"  status: {STATUS[status]}\n  health: 2\n  present: true\n  level: {capacity}\n  scale: 100\n"
        f"  voltage: {round(volts * 1000)}\n  temperature: {round(celsius * 10)}\n  technology: Li-ion\n"
    )


def thermal_text(celsius: dict[str, tuple[int, float]], status: int) -> str:
    """What ``dumpsys thermalservice`` prints, as Android 13 does; zones are (type, temperature) by name."""
    now = "".join(
        f"\tTemperature{{mValue={value:.3f}, mType={kind}, mName={name}, mStatus={status}}}\n"
        for name, (kind, value) in celsius.items()
    )
    cached = "\tTemperature{mValue=99.0, mType=3, mName=skin, mStatus=4}\n"
    return (
        f"IsStatusOverride: false\nThermalEventListeners:\n\tcallbacks: 1\nThermal Status: {status}\n"
        f"Cached temperatures:\n{cached}HAL Ready: true\nHAL connection:\n\tThermalHAL AIDL 1 connected: yes\n"
        f"Current temperatures from HAL:\n{now}Current cooling devices from HAL:\n"
        "\tCoolingDevice{mValue=0, mType=2, mName=thermal-cpufreq-0}\n"
    )
