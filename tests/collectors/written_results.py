"""Small recordings in the formats of EnergyRunner and of MLPerf power, written byte by byte."""

import json
import struct
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

EDGES = [0.022, 1.1, 2.458, 3.626, 4.985]
START = datetime(2021, 4, 5, 3, 7, 11, tzinfo=UTC)  # 5 April: 04-05 and 05-04 are both dates
MONTH_FIRST, DAY_FIRST = "%m-%d-%Y %H:%M:%S.%f", "%d-%m-%Y %H:%M:%S.%f"
AHEAD = 0.05
"""The meter's host is this many seconds behind the client."""
MS = 1_000_000


def write_trace(
    folder: Path, samples: np.ndarray, rate: float = 1000.0, edges=EDGES, name: str = "trace1"
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    trace = folder / f"{name}-energy.bin"
    trace.write_bytes(b"\xf1" + struct.pack("<f", rate) + samples.astype("<f4").tobytes())
    (folder / f"{name}-timestamps.json").write_text(json.dumps(edges))
    return trace


def write_results(folder: Path, windows, newline: str = "\n") -> None:
    """(window, start s, energy uJ, inferences) each, as EnergyRunner prints them."""
    lines = []
    for w, start, energy, inferences in windows:
        lines += [
            f"00192.451 ulp-ml: Energy data for window {w} at time {start:.2f} for 1.36 sec.:",
            f"00192.452 ulp-ml:   Energy       :   {energy:.3f} uJ",
            "00192.453 ulp-ml:   Power        :    42654.123 uW",
            f"00192.453 ulp-ml:   Energy/Inf.  :      {energy / inferences:.3f} uJ/inf.",
            f"00192.489 ulp-ml: Performance results for window {w}:",
            f"00192.489 ulp-ml:   # Inferences :         {inferences}",
            "00192.489 ulp-ml:   Runtime      :        1.358 sec.",
            "00192.489 ulp-ml: e-[The run must take at least 10 seconds and 10 iterations to be valid]",
        ]
    (folder / "results.txt").write_bytes(newline.join([*lines, ""]).encode())


LOG = r"""00091.928 session: m-session-start-id[20220926152224]
00092.438 parser: m-bm-cfg-name[ulp-ml]-key[model]-val[ad01]
00092.646 sequencer: m-sequencing-i[8]-command[emon trace on trace1]-ack[/emon: m-ready/]-ms[5000]
00092.646 parser: Command "emon trace on trace1"
00092.682 emon: m-trace[on]
00092.683 parser: Command "io dut timestamp"
00092.702 io: m-ready
00092.710 io: [dut]: m-ready
00093.693 parser: Command "io dut infer 1500 1"
00093.780 io: [dut]: m-infer-start-1500
00095.156 io: [dut]: m-infer-done
00095.160 io: [dut]: m-results-[0.207]
00096.200 parser: Command "io dut infer 1500 1"
00096.310 io: [dut]: m-infer-start-1500
00097.690 io: [dut]: m-infer-done
00099.396 emon: m-regfile-fn[trace1-energy.bin]-type[emon]-name[lpm01a]
00099.397 emon: m-trace[off]
00099.406 emon: m-voltage-mv[1800]
"""


class Result:
    """Writes a result folder: ranging from 30 s to 130 s, testing from 200 s to 300 s after START."""

    def __init__(
        self, folder: Path, *, zone_h: float = -7, server_zone_h: float | None = None, step: float = 0.0
    ):
        self.folder = folder
        self.zone = timedelta(hours=zone_h)
        self.server_zone = self.zone if server_zone_h is None else timedelta(hours=server_zone_h)
        self.step = step  # of the server's clock before testing
        self.watts: dict[str, list[float]] = {}

    def stamp(self, seconds: float, zone: timedelta, pattern: str = MONTH_FIRST) -> str:
        return (START + timedelta(seconds=seconds) + zone).strftime(pattern)[:-3]

    def run(
        self, name: str, first: float, *, pattern: str = MONTH_FIRST, newline: str = "\n", extra: str = ""
    ) -> None:
        """100 samples, 10 W before and after the window, 20 to 21 W within its 80 s."""
        out = self.folder / name
        out.mkdir(parents=True, exist_ok=True)
        lines, self.watts[name] = [], []
        for k in range(100):
            watts = 20 + k / 100 if 10 <= k < 90 else 10.0
            self.watts[name].append(watts)
            when = self.stamp(
                first + k + 0.5 - AHEAD + (self.step if first > 150 else 0), self.server_zone, pattern
            )
            lines.append(f"Time,{when},Watts,{watts:.6f},Volts,120.0,Amps,0.2,PF,0.4,Mark,s_{name}{extra}")
        (out / "spl.txt").write_bytes(newline.join([*lines, ""]).encode())
        begin, end = self.stamp(first + 10, self.zone), self.stamp(first + 90, self.zone)
        keys = [
            (
                "test_datetime",
                (START + timedelta(seconds=first + 9.5) + self.zone).strftime("%Y-%m-%dT%H:%M:%SZ"),
                0.04,
            )
        ]
        keys += [
            ("power_begin", begin, 80000.1),
            ("power_end", end, 80000.1),
            ("result_validity", "VALID", 80001.0),
        ]
        detail = [f":::MLLOG {json.dumps({'key': k, 'value': v, 'time_ms': t})}" for k, v, t in keys]
        (out / "mlperf_log_detail.txt").write_bytes(newline.join([*detail, ""]).encode())

    def session(self) -> None:
        """client.json, server.json and client.log: exchanges of 2 ms, served in the middle."""
        power = self.folder / "power"
        power.mkdir(parents=True)
        base = int(START.timestamp())
        plan = [("mlcommons/power client v3", 0.0, 0.002), ("time", 0.2, 0.202), ("new,,u", 0.3, 0.302)]
        plan += [
            ("time", 1.0, 1.002),
            ("session,s,start,ranging", 2.0, 29.0),
            ("session,s,stop,ranging", 131.0, 141.0),
        ]
        plan += [
            ("time", 150.0, 150.002),
            ("session,s,start,testing", 151.0, 199.0),
            ("session,s,stop,testing", 301.0, 311.0),
        ]
        client, server = [], []
        for cmd, sent, answered in plan:
            client.append({"cmd": cmd, "reply": "OK", "cmd_time": base + sent, "reply_time": base + answered})
            shift = (self.step if sent >= 150 else 0) - AHEAD
            times = {"cmd_time": base + sent + 0.001 + shift, "reply_time": base + answered - 0.001 + shift}
            server.append({"cmd": cmd, "reply": "OK", **times})
        phases = {
            "ranging": [[base + t, 0.0] for t in (2, 29, 131, 141)],
            "testing": [[base + t, 0.0] for t in (151, 199, 301, 311)],
        }
        name = (START + self.server_zone).strftime("%Y-%m-%d_%H-%M-%S")
        common = {"timezone": 0, "session_name": name}
        (power / "client.json").write_text(json.dumps(common | {"messages": client, "phases": phases}))
        messages = [
            {"cmd": "Identify", "reply": "YokogawaWT330E,1,OS=Linux"},
            {"cmd": "Go,1000,0,s_ranging", "reply": ""},
        ]
        moved = {mode: [[t - AHEAD, m] for t, m in stamps] for mode, stamps in phases.items()}
        (power / "server.json").write_text(
            json.dumps(common | {"messages": server, "phases": moved, "ptd_messages": messages})
        )
        (power / "client.log").write_text(
            f"client {(START + self.zone).strftime('%Y-%m-%d %H:%M:%S')},000 [INFO] x\n"
        )

    def expected(self, name: str) -> float:
        return sum(self.watts[name][10:90]) / 80


def full(folder: Path, **kwargs) -> Result:
    result = Result(folder, **kwargs)
    result.session()
    result.run("ranging", 30)
    result.run("run_1", 200)
    return result
