"""An Otii Arc behind the TCP server of its application: JSON on lines that end in CRLF, recordings that grow.

Requests, replies and error codes are those that Qoitech's client (PyPI otii-tcp-client 1.0.13) sends and reads. A recording's
samples are made of the load when they are asked for; the server, not the device, keeps them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from typing import Any, ClassVar

import numpy as np
import trio

from melt_stream.clock import monotonic
from melt_stream.emulators import Emulated, Place
from melt_stream.emulators._otii_recording import Array, Recording, statistics
from melt_stream.emulators._otii_server import Data, Refusal, Server

WATCH_S = 0.005
"""How often it is looked whether a fault is due."""
ID = "Arc512031204843494E3130393033313036"
REGULATED = {"voltage", "current", "inline", "off"}


@dataclass
class Otii(Emulated):
    """One server with one device. Own faults: ``disconnect@1`` closes all connections (others may be made; the recording goes on), ``ended@1`` ends
    the recording, as if somebody had stopped it.
    """

    own_faults: ClassVar[tuple[str, ...]] = ("disconnect", "ended")

    _: KW_ONLY
    kind: str = "Arc"
    most_volts: float = 5.0
    """What the main output can give, as it is powered."""
    hz: float = 4000.0
    """Samples of main current a second."""
    volts_hz: float = 1000.0
    """Samples of everything else."""
    licence: str = "none"
    """``none``: no command needs one; ``free``: one can be reserved, and must be; ``taken``: another has it."""
    is_old: bool = False
    """An application that knows no licences, no ``recording_is_running`` and no ``arc_add_to_project``."""
    gpi: list[tuple[float, int, bool]] = field(default_factory=list)
    """From so many seconds of the load on, pin 1 or 2 is high or low."""
    uart: list[tuple[float, str]] = field(default_factory=list)
    """At so many seconds of the load, this line comes in at RX."""
    progress: bool = False
    """Says how far it is before it answers."""
    connected: bool = True
    """Whether the device is plugged in."""
    volts: float = field(default=0.0, init=False)
    max_amps: float = field(default=5.0, init=False)
    powered: bool = field(default=False, init=False)
    enabled: set[str] = field(default_factory=set, init=False)
    reserved: bool = field(default=False, init=False)
    recordings: list[Recording] = field(default_factory=list, init=False)
    heard: list[str] = field(default_factory=list, init=False)
    """Every command, in the order it came."""
    _server: Server = field(init=False)

    async def play(self, task_status: trio.TaskStatus[Place] = trio.TASK_STATUS_IGNORED) -> None:
        """Be the server until cancelled, or unplugged by a fault."""
        self.began = monotonic()
        self._server = Server(self._do, self._on_the_wire, self.progress)
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(partial(trio.serve_tcp, self._server.serve, 0, host="127.0.0.1"))
            host, port = listeners[0].socket.getsockname()[:2]
            task_status.started({"host": host, "tcp_port": port})
            await self._watch()
            nursery.cancel_scope.cancel()

    @property
    def running(self) -> Recording | None:
        """The recording that grows."""
        return next((one for one in self.recordings if one.ended is None), None)

    async def _watch(self) -> None:
        """Play the faults that are due, until the cable is pulled."""
        while True:
            await trio.sleep(WATCH_S)
            if (recording := self.running) is not None and await self._harm(recording):
                return

    async def _harm(self, recording: Recording) -> bool:
        now = monotonic()
        seconds = recording.seconds(now)
        due = partial(self.faults.due, seconds=seconds, sample=recording.count(self.hz, now))
        if due("unplug"):
            return True
        lost = due("stall") + due("skip") / self.hz
        if lost:
            recording.holes.append((seconds, seconds + lost))
        if due("ended"):
            recording.ended = seconds
        if due("disconnect"):
            await self._server.disconnect()
        return False

    def _on_the_wire(self, data: bytes) -> bytes:
        recording = self.running
        return data if recording is None else self.faults.harm(data, recording.seconds(monotonic()), 0)

    def _do(self, command: str, data: Data) -> Data | None:
        self.heard.append(command)
        table = self._old_commands() | ({} if self.is_old else self._new_commands())
        if (do := table.get(command)) is None:
            raise Refusal("Invalid command")
        if command.startswith(("arc_", "project_", "recording_")) and not self._is_licensed:
            raise Refusal("No license", message="a licence for automation is needed")
        if command.startswith("arc_") and (not self.connected or data["device_id"] != ID):
            raise Refusal("Device not connected", device_id=data["device_id"])
        return do(data)

    @property
    def _is_licensed(self) -> bool:
        return self.is_old or self.licence == "none" or self.reserved

    def _old_commands(self) -> dict[str, Callable[[Data], Data | None]]:
        return {
            "otii_get_devices": lambda _: {"devices": self._devices()},
            "otii_get_active_project": lambda _: {"project_id": 1},
            "project_start_recording": self._start,
            "project_stop_recording": self._stop,
            "project_get_last_recording": lambda _: self._described(self.recordings[-1] if self.recordings else None),
            "recording_get_channel_data_count": lambda d: {"count": self._count(self._recording(d), d["channel"])},
            "recording_get_channel_data_index": self._index,
            "recording_get_channel_data": self._channel_data,
            "recording_get_channel_info": self._info,
            "recording_get_channel_statistics": self._statistics,
            "arc_set_main_voltage": self._set_volts,
            "arc_get_main_voltage": lambda _: {"value": self.volts},
            "arc_set_max_current": self._set_max,
            "arc_get_max_current": lambda _: {"value": self.max_amps},
            "arc_set_main": lambda d: setattr(self, "powered", bool(d["enable"])),
            "arc_get_main": lambda _: {"value": self.powered},
            "arc_enable_channel": self._enable,
            "arc_get_value": lambda d: {"value": float(self._values(d["channel"], np.array([float(monotonic())]))[0])},
            "arc_get_version": lambda _: {"hw_version": "1.3", "fw_version": "2.1.0"},
            "arc_is_connected": lambda _: {"connected": self.connected},
            **dict.fromkeys(
                ("arc_set_exp_voltage", "arc_enable_exp_port", "arc_enable_uart", "arc_set_uart_baudrate", "arc_calibrate"),
                lambda _: None,
            ),
        }  # fmt: skip

    def _new_commands(self) -> dict[str, Callable[[Data], Data | None]]:
        mine = {"id": 7, "type": "Automation", "available": True, "hostname": ""}
        holder = {"taken": "joe"}.get(self.licence, "me" if self.reserved else "")
        return {
            "otii_is_logged_in": lambda _: {"logged_in": True},
            "otii_get_licenses": lambda _: {"licenses": [] if self.licence == "none" else [mine | {"reserved_to": holder}]},
            "otii_reserve_license": partial(self._reserve, reserve=True),
            "otii_return_license": partial(self._reserve, reserve=False),
            "arc_add_to_project": lambda _: None,
            "arc_get_channel_samplerate": lambda d: {"value": round(self._hz(d["channel"]))},
            "recording_is_running": lambda d: {"running": self._recording(d).ended is None},
        }  # fmt: skip

    def _reserve(self, data: Data, *, reserve: bool) -> None:
        if data["license_id"] != 7 or self.licence == "taken":
            raise Refusal("License could not be reserved" if reserve else "License could not be returned")
        self.reserved = reserve

    def _devices(self) -> list[Data]:
        return [{"device_id": ID, "name": "Arc I", "type": self.kind}] if self.connected else []

    def _start(self, _: Data) -> None:
        if self.running is not None:
            raise Refusal("Command failure", message="a recording is running")
        self.recordings.append(Recording(len(self.recordings) + 1, monotonic(), self.faults.rate))

    def _stop(self, _: Data) -> None:
        if (recording := self.running) is None:
            raise Refusal("Command failure", message="no recording is running")
        recording.ended = recording.seconds(monotonic())

    def _described(self, recording: Recording | None) -> Data:
        if recording is None:
            return {"recording_id": -1}
        channels = [{"device_id": ID, "channel": name} for name in sorted(self.enabled)]
        return {
            "recording_id": recording.number,
            "name": f"Recording {recording.number}",
            "measurements": channels,
        }

    def _recording(self, data: Data) -> Recording:
        number = data["recording_id"]
        for recording in self.recordings:
            if recording.number == number:
                return recording
        raise Refusal("Invalid key value", key="recording_id", value=number)

    def _set_volts(self, data: Data) -> None:
        if not 0.5 <= data["value"] <= self.most_volts:
            raise Refusal("Invalid key value", key="value", value=data["value"])
        self.volts = float(data["value"])

    def _set_max(self, data: Data) -> None:
        if not 0.001 <= data["value"] <= 5:
            raise Refusal("Invalid key value", key="value", value=data["value"])
        self.max_amps = float(data["value"])

    def _enable(self, data: Data) -> None:
        if data["channel"] not in {"mc", "mv", "mp", "tp", "vb", "i1", "i2", "rx"}:
            raise Refusal("Invalid key value", key="channel", value=data["channel"])
        (self.enabled.add if data["enable"] else self.enabled.discard)(data["channel"])

    def _hz(self, channel: str) -> float:
        return self.hz if channel in ("mc", "mp") else self.volts_hz

    def _count(self, recording: Recording, channel: str) -> int:
        if channel not in self.enabled:
            raise Refusal("Invalid key value", key="channel", value=channel)
        if (entries := self._entries(recording, channel)) is not None:
            return len(entries)
        return recording.count(self._hz(channel), monotonic())

    def _entries(self, recording: Recording, channel: str) -> list[Data] | None:
        """All that a digital or text channel holds; None of an analog one."""
        of = {"i1": 1, "i2": 2}
        if channel == "rx":
            said: list[tuple[float, Any]] = list(self.uart)
        elif channel in of:
            said = [(at, level) for at, pin, level in self.gpi if pin == of[channel]]
        else:
            return None
        offset = (recording.began - self.began) / 1e9
        entries = [{"timestamp": (at - offset) * recording.pace, "value": value} for at, value in said]
        return [one for one in entries if 0 <= one["timestamp"] < recording.seconds(monotonic())]

    def _index(self, data: Data) -> Data:
        recording, channel = self._recording(data), data["channel"]
        times = recording.times(self._hz(channel), 0, self._count(recording, channel))
        return {"index": int(np.searchsorted(times, data["timestamp"] - 1e-9))}

    def _channel_data(self, data: Data) -> Data:
        recording, channel = self._recording(data), data["channel"]
        index, count = data["index"], data["count"]
        count = max(0, min(count, self._count(recording, channel) - index))
        if (entries := self._entries(recording, channel)) is not None:
            return {
                "data_type": "log" if channel == "rx" else "digital",
                "values": entries[index : index + count],
            }
        hz = self._hz(channel)
        times = recording.times(hz, index, count)
        values = self._values(channel, recording.host(times))
        start = float(times[0]) if count else 0.0
        return {"data_type": "analog", "timestamp": start, "interval": 1 / hz, "values": values.tolist()}

    def _info(self, data: Data) -> Data:
        recording, channel = self._recording(data), data["channel"]
        hz, count = self._hz(channel), self._count(recording, channel)
        end = float(recording.times(hz, count - 1, 1)[0]) + 1 / hz if count else 0.0
        return {"offset": 0.0, "from": 0.0, "to": end, "sample_rate": round(hz)}

    def _statistics(self, data: Data) -> Data:
        recording, channel = self._recording(data), data["channel"]
        times = recording.times(self._hz(channel), 0, self._count(recording, channel))
        at = recording.host(times[(times >= data["from"]) & (times < data["to"])])
        if not len(at):
            raise Refusal("Invalid key value", key="from", value=data["from"])
        return statistics(
            channel, self._values(channel, at), self._values("mp", at), len(at) / self._hz(channel)
        )

    def _values(self, channel: str, at: Array) -> Array:
        """What a channel shows at these host times, ns."""
        volts = self.volts if self.powered else 0.0
        if channel in ("mc", "mp"):
            amps = self.load.amps((at - self.began) / 1e9, volts)
            return amps if channel == "mc" else amps * volts
        return np.full(len(at), {"mv": volts, "vb": 5.0, "tp": 31.5}[channel])
