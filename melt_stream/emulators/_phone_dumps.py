"""What a phone's services say of its battery and its temperatures when they are dumped, as Android 13 prints it."""

from __future__ import annotations

STATUS = {"Charging": 2, "Discharging": 3, "Not charging": 4, "Full": 5}


def battery_text(
    status: str, *, plugged: bool, volts: float, capacity: int, celsius: float, charge: int
) -> str:
    """What ``dumpsys battery`` prints."""
    return (
        "Current Battery Service state:\n"
        f"  AC powered: false\n  USB powered: {str(plugged).lower()}\n  Wireless powered: false\n  Dock powered: false\n"
        f"  Max charging current: 0\n  Max charging voltage: 0\n  Charge counter: {charge}\n"
        f"  status: {STATUS[status]}\n  health: 2\n  present: true\n  level: {capacity}\n  scale: 100\n"
        f"  voltage: {round(volts * 1000)}\n  temperature: {round(celsius * 10)}\n  technology: Li-ion\n"
    )


def thermal_text(celsius: dict[str, tuple[int, float]], status: int) -> str:
    """What ``dumpsys thermalservice`` prints; zones are (type, temperature) by name."""
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
