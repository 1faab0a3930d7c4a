"""A stand-in for jetson-stats' client, as text that a Python runs: the few attributes of its API that are asked for, with steady numbers.

After the documentation of its version 4; nothing of it is copied. The emulated Jetson has one whose rails are its own (``look``).
"""

from __future__ import annotations

MODULE = """
import time
MILLIVOLTS = {"VDD_GPU_SOC": 19952, "VDD_CPU_CV": 19944, "VIN_SYS_5V0": 5008, "VDDQ_VDD2_1V8AO": 5016}
def look():
    return {"VDD_GPU_SOC": 500, "VDD_CPU_CV": 200, "VIN_SYS_5V0": 1200, "VDDQ_VDD2_1V8AO": 400}
class jtop:
    def __init__(self, interval=0.5):
        self.interval, self._next = interval, time.monotonic()
    def __enter__(self):
        self.board = {"hardware": {"Model": "NVIDIA Jetson AGX Orin", "L4T": "36.4.0", "Serial Number": "1421"}}
        return self
    def __exit__(self, *_):
        return False
    def ok(self):
        time.sleep(max(0.0, self._next - time.monotonic()))
        self._next += self.interval
        return True
    @property
    def power(self):
        rails = {
            name: {"volt": MILLIVOLTS[name], "curr": curr, "power": MILLIVOLTS[name] * curr // 1000, "avg": 0,
                   "warn": 81900, "crit": 81900, "online": True}
            for name, curr in look().items()
        }
        total = sum(rail["power"] for rail in rails.values())
        return {"rail": rails, "tot": {"power": total, "avg": 0}}
    temperature = {"cpu": {"temp": 43.9, "online": True}, "cv0": {"temp": -256, "online": False}}
    cpu = {"total": {"idle": 90.0}, "cpu": [
        {"online": True, "governor": "schedutil", "freq": {"min": 729600, "max": 2201600, "cur": 1190400}, "idle": 88.0},
        {"online": True, "governor": "schedutil", "freq": {"min": 729600, "max": 2201600, "cur": 729600}, "idle": 96.0},
        {"online": False},
    ]}
    gpu = {"gpu": {"type": "integrated", "status": {"load": 39.0, "3d_scaling": True}, "freq": {"cur": 305000, "max": 1300500}}}
    memory = {"RAM": {"tot": 31433728, "used": 2506752}, "SWAP": {"tot": 0, "used": 0}, "EMC": {"cur": 3199000, "max": 3199000, "val": 3}}
    fan = {"pwmfan": {"speed": [35.2], "rpm": [1301], "profile": "cool", "governor": "cont", "control": "close_loop"}}
    nvpmodel = "MAXN"
    @property
    def jetson_clocks(self):
        raise RuntimeError("not on this board")
"""
SHIM = (
    "import sys, types\n"
    f"m = types.ModuleType('jtop')\nexec({MODULE!r}, m.__dict__)\nsys.modules['jtop'] = m\n"
    "code, sys.argv = sys.argv[2], ['-c', *sys.argv[3:]]\nexec(code)"
)
"""For ``python -c SHIM -c PROGRAM ...``: PROGRAM finds the stand-in."""
