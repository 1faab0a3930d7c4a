"""A phone at the end of adb: a daemon on loopback TCP that real adb servers accept, real ``mksh`` and ``toybox``, files that follow the load.

    adb connect 127.0.0.1:PORT
    adb -s 127.0.0.1:PORT shell cat /sys/class/power_supply/battery/current_now

As root it has a root folder and clocks of its own; without, it is this machine's shell, and its ``/sys`` is below ``root``.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from typing import ClassVar

import numpy as np
import trio

from melt_stream.clock import monotonic
from melt_stream.emulators import Emulated, Place
from melt_stream.emulators._adbd import Link
from melt_stream.emulators._adbd_services import Services
from melt_stream.emulators._phone import BOOTTIME_S, Phone, switched_on
from melt_stream.emulators._phone_dumps import battery_text, thermal_text
from melt_stream.emulators._phone_power import REFRESH_S, Counters
from melt_stream.emulators._phone_tools import INSIDE

SUPPLY = "sys/class/power_supply"
CPU = "sys/devices/system/cpu"
IIO = "sys/bus/iio/devices"
ZONES = {"battery": (2, 31_000), "cpu-little": (0, 38_000), "cpu-big": (0, 41_000), "skin": (3, 33_000)}
"""By name: Android's number for the type, and what they have at rest, millidegrees."""
CAPACITY = 83
LIGHT, MODERATE = 0.5, 0.8
"""Shares of full power at which Android would say that it throttles."""
LITTLE_KHZ, BIG_KHZ = 1_800_000, 2_850_000
FULL_WATTS = 8.0
"""At which the processor runs at its highest clock."""
STEP_S = 0.01
REBOOT_S = 1.0
FEATURES = "shell_v2,cmd,stat_v2,ls_v2"


@dataclass
class Android(Emulated):
    """One phone. Faults: ``unplug@4:2`` drops the link for 2 s, ``stall@3:0.5`` delays all that it sends, ``rate:80`` is its
    clock's; own: ``slow@1:50`` has the link carry 50 kB/s from then on. Seconds are the load's.
    """

    own_faults: ClassVar[tuple[str, ...]] = ("slow",)
    _: KW_ONLY
    model: str = "Emulated Phone"
    volts: float = 3.85
    gauge_s: float = 0.25
    """How often the battery's gauge looks."""
    ahead_ms: float = 0.0
    """How far its wall clock is ahead of ours when it is switched on."""
    closed: bool = False
    """Its /sys tells the shell of no battery, temperature or rail, as a production phone's may: ``dumpsys`` and ``perfetto`` do."""
    plugged: bool = False
    """It is charged over USB."""
    port: int = 0
    """Where its adbd listens; 0: any that is free."""
    phone: Phone = field(init=False)
    _plug: trio.CancelScope = field(default_factory=trio.CancelScope, init=False)
    _away_s: float = field(default=0.0, init=False)
    _held_until: float = field(default=0.0, init=False)
    _kb_s: float = field(default=0.0, init=False)
    _counters: Counters = field(init=False)

    async def play(self, task_status: trio.TaskStatus[Place] = trio.TASK_STATUS_IGNORED) -> None:
        """Be the phone until cancelled."""
        async with switched_on(self._clock()) as self.phone:
            with self.served(self.phone.tree / "system/bin", self.phone.tree / "activity"):
                await self._play(task_status)

    async def _play(self, task_status: trio.TaskStatus[Place]) -> None:
        async with trio.open_nursery() as nursery:
            self.began = monotonic()
            self._counters = Counters(self.joules, self.volts, BOOTTIME_S if self.phone.own_root else 0)
            self.phone.write(self._still() | self._now() | self._counted())
            nursery.start_soon(self._live)
            port, begun = self.port, False
            while True:
                with trio.CancelScope() as self._plug:
                    async with trio.open_nursery() as plugged:
                        (listener,) = await plugged.start(
                            partial(trio.serve_tcp, self._serve, port, host="127.0.0.1")
                        )
                        if not begun:
                            begun, port = True, listener.socket.getsockname()[1]
                            task_status.started(self._place(port))
                await trio.sleep(self._away_s)

    def _place(self, port: int) -> Place:
        serial = f"127.0.0.1:{port}"
        connect = f"adb connect {serial}"
        return {
            "host": "127.0.0.1", "tcp_port": port, "serial": serial, "connect": connect, "root": self.phone.root,
        }  # fmt: skip

    def unplug(self, seconds: float) -> None:
        """Drop the link; nobody can connect for so long."""
        self._away_s = seconds
        self._plug.cancel()

    def _reboot(self) -> None:
        self.phone.boot()
        self.unplug(REBOOT_S)

    def _clock(self) -> str | None:
        if self.faults.rate == 1 and not self.ahead_ms:
            return None
        return f"{self.ahead_ms / 1000:+.6f} x{self.faults.rate:.7f}"

    async def _serve(self, stream: trio.SocketStream) -> None:
        name = self.model.replace(" ", "_")
        banner = f"device::ro.product.name=emulated;ro.product.model={name};ro.product.device=emulated;features={FEATURES}"
        stream.setsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_NODELAY, 1)
        services = Services(self.phone, self._reboot)
        await Link(stream, banner, services.serve, services.knows, self._before).run()

    async def _before(self, size: int) -> None:
        await trio.sleep_until(self._held_until)
        if self._kb_s:
            await trio.sleep(size / 1000 / self._kb_s)

    async def _live(self) -> None:
        due, looked, counted = self.faults.due, 0, 0
        while True:
            await trio.sleep(STEP_S)
            seconds = self.seconds()
            if seconds >= (looked + 1) * self.gauge_s:
                looked = int(seconds / self.gauge_s)
                self.phone.write(self._now())
                if self.load.activity is not None:
                    self.load.activity.showed()
            if seconds >= (counted + 1) * REFRESH_S:
                counted = int(seconds / REFRESH_S)
                self.phone.write(self._counted())
            if stalled := due("stall", seconds, looked):
                self._held_until = trio.current_time() + stalled
            self._kb_s = due("slow", seconds, looked) or self._kb_s
            if away := due("unplug", seconds, looked):
                self.unplug(away)

    def _counted(self) -> dict[str, str]:
        """The files of the chips that count energy."""
        texts = self._counters.files(self.seconds())
        inside = {f"{INSIDE}/odpm/{path}": text for path, text in texts.items()}
        return inside if self.closed else inside | {f"{IIO}/{path}": text for path, text in texts.items()}

    def _now(self) -> dict[str, str]:
        """What the load makes of the files that follow it."""
        amps = float(self.load.amps(np.array([self.seconds()]), self.volts)[0])
        share = min(1.0, amps * self.volts / FULL_WATTS)
        files = self._told(amps, share)
        if not self.closed:
            files |= {
                f"{SUPPLY}/battery/current_now": f"{-round(amps * 1e6)}\n",
                f"{SUPPLY}/battery/voltage_now": f"{round(self.volts * 1e6)}\n",
            }
            for zone, (_, rest) in enumerate(ZONES.values()):
                files[f"sys/class/thermal/thermal_zone{zone}/temp"] = f"{rest + round(share * 10_000)}\n"
        for cpu in range(8):
            top = LITTLE_KHZ if cpu < 4 else BIG_KHZ
            files[f"{CPU}/cpu{cpu}/cpufreq/scaling_cur_freq"] = (
                f"{round(top * (0.2 + 0.8 * share)) // 1000 * 1000}\n"
            )
        return files

    def _told(self, amps: float, share: float) -> dict[str, str]:
        """What its tools tell, whatever /sys shows."""
        celsius = {name: (kind, rest / 1000 + share * 10) for name, (kind, rest) in ZONES.items()}
        throttled = (share >= LIGHT) + (share >= MODERATE)
        status = "Charging" if self.plugged else "Discharging"
        return {
            f"{INSIDE}/gauge": f"{-round(amps * 1e6)} {round(self.volts * 1e6)} {CAPACITY} {self._counters.microamp_hours}\n",
            f"{INSIDE}/battery": battery_text(
                status,
                plugged=self.plugged,
                volts=self.volts,
                capacity=CAPACITY,
                celsius=celsius["battery"][1],
                charge=self._counters.microamp_hours,
            ),
            f"{INSIDE}/thermalservice": thermal_text(celsius, throttled),
        }

    def _still(self) -> dict[str, str]:
        """The files that never change."""
        files = {} if self.closed else self._supplies()
        for cpu in range(8):
            top = LITTLE_KHZ if cpu < 4 else BIG_KHZ
            folder = f"{CPU}/cpu{cpu}/cpufreq"
            files |= {
                f"{folder}/cpuinfo_max_freq": f"{top}\n", f"{folder}/scaling_max_freq": f"{top}\n",
                f"{folder}/cpuinfo_min_freq": "300000\n", f"{folder}/scaling_min_freq": "300000\n",
                f"{folder}/scaling_governor": "sched_pixel\n",
            }  # fmt: skip
        files[f"{CPU}/online"] = files[f"{CPU}/possible"] = "0-7\n"
        return files

    def _supplies(self) -> dict[str, str]:
        """What /sys says of the battery, its charger, and the thermal zones' types."""
        status = "Charging" if self.plugged else "Discharging"
        zones = {f"sys/class/thermal/thermal_zone{zone}/type": f"{name}\n" for zone, name in enumerate(ZONES)}
        return zones | {
            f"{SUPPLY}/battery/type": "Battery\n", f"{SUPPLY}/battery/status": f"{status}\n",
            f"{SUPPLY}/battery/capacity": f"{CAPACITY}\n", f"{SUPPLY}/battery/temp": "310\n",
            f"{SUPPLY}/battery/charge_counter": "3652000\n", f"{SUPPLY}/battery/health": "Good\n",
            f"{SUPPLY}/usb/type": "USB\n", f"{SUPPLY}/usb/online": f"{int(self.plugged)}\n",
        }  # fmt: skip
