"""A stand-in for nvidia-smi, as text that a Python runs: its queries, help and errors, of made-up GPUs.

After its help text and public transcripts. ``GPUS`` and ``FIELDS`` may be replaced in tests, for older drivers and other cards.
"""

from __future__ import annotations

SHIM = r"""
import sys, time
GPUS = [{
    "index": "0", "uuid": "GPU-0a1b2c3d-0000-4444-8888-000000000001", "name": "NVIDIA Example 8000", "driver_version": "570.00",
    "compute_cap": "8.9", "power.draw.instant": "72.31", "power.draw.average": "70.02", "power.draw": "70.02", "clocks.sm": "1800",
    "clocks.mem": "[N/A]", "utilization.gpu": "35", "utilization.memory": "20", "memory.used": "3072", "memory.total": "8192",
    "temperature.gpu": "54", "clocks_event_reasons.active": "0x0000000000000004",
}]
FIELDS = list(GPUS[0])
words = dict(word.partition("=")[::2] for word in sys.argv[1:] if "=" in word)
if "--help-query-gpu" in sys.argv:
    print("List of valid properties to query for the switch \"--query-gpu=\":\n")
    for name in FIELDS:
        print('"%s"%s\nSome words about it.\n' % (name, ' or "gpu_%s"' % name if name == "name" else ""))
    sys.exit()
asked = words["--query-gpu"].split(",")
for name in asked:
    if name not in FIELDS:
        print('Field "%s" is not a valid field to query.\n' % name)
        sys.exit(2)
every = float(sys.argv[sys.argv.index("-lms") + 1]) / 1000 if "-lms" in sys.argv else None
while True:
    for gpu in GPUS:
        print(", ".join(gpu[name] for name in asked), flush=True)
    if every is None:
        break
    time.sleep(every)
"""
