"""What ``nvpmodel -q`` and ``jetson_clocks --show`` print. Formats: protocols.md 5.4, and boards' outputs seen in public."""

from __future__ import annotations

import re

MODE = re.compile(r"^NV Power Mode:\s*(\S[^\r\n]*?)\s*[\r\n]+\s*(\d{1,6})\s*$", re.MULTILINE)
LINE = re.compile(r"^(\w+):?\s+(\S.*=.*)$")
PAIR = re.compile(r"(\w+)=(\S*)")
PINNED, FREE = "pinned", "free"


def mode(said: str) -> dict[str, int | str]:
    """Return the power mode's number and name. Raises ``ValueError`` where it is not told."""
    if (found := MODE.search(said)) is None:
        raise ValueError("no line 'NV Power Mode: NAME' with a number below it")
    return {"mode": int(found[2]), "name": found[1]}


def mode_state(said: str) -> str:
    """Return the power mode's number, as text. Raises ``ValueError``."""
    return str(mode(said)["mode"])


def clocks(said: str) -> dict[str, dict[str, str]]:
    """Return what is told of each part: ``{"GPU": {"MinFreq": "306000000", ...}}``; CPUs in kHz, all else in Hz, as printed.

    Raises ``ValueError`` where no part has a lowest and a highest clock.
    """
    found = (LINE.match(line.strip()) for line in said.splitlines())
    parts = {line[1]: dict(PAIR.findall(line[2])) for line in found if line}
    if not any({"MinFreq", "MaxFreq"} <= part.keys() for part in parts.values()):
        raise ValueError("no line with MinFreq= and MaxFreq=")
    return parts


def clocks_state(said: str) -> str:
    """Return whether every CPU that is online and the GPU have one clock only, and the memory's is overridden. Raises ``ValueError``."""
    return PINNED if all(_pinned(name, part) for name, part in clocks(said).items()) else FREE


def _pinned(name: str, part: dict[str, str]) -> bool:
    if name == "EMC":
        return part.get("FreqOverride") == "1"
    if name != "GPU" and not re.fullmatch(r"cpu\d+", name):
        return True  # accelerators and the fan are not told by their limits
    return part.get("Online") == "0" or part.get("MinFreq") == part.get("MaxFreq")
