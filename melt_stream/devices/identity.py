"""What a device is: its make, system, cores and memory, asked for in one command. Pure but for ``ask``: texts in, facts out.

Sources: Android's ``getprop``; ``/proc/cpuinfo`` and ``/proc/meminfo`` (proc(5)); a device tree's ``model`` and ``compatible``;
``/etc/nv_tegra_release`` (Jetson Linux); ``/etc/os-release`` (os-release(5)).
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from melt_stream.devices.channel import Device, run
from melt_stream.errors import DeviceError

PARTS = {
    "uname": "uname -s; uname -r; uname -m",
    "getprop": "getprop",
    "cpuinfo": "cat /proc/cpuinfo",
    "meminfo": "cat /proc/meminfo",
    "present": "cat /sys/devices/system/cpu/present",
    "model": "tr '\\0' '\\n' </proc/device-tree/model",
    "compatible": "tr '\\0' '\\n' </proc/device-tree/compatible",
    "dmi": "cat /sys/class/dmi/id/sys_vendor /sys/class/dmi/id/product_name",
    "tegra": "cat /etc/nv_tegra_release",
    "release": "cat /etc/os-release",
    "user": "id -u",
}
"""What is asked for, each by a line for any shell; what a device does not have says nothing."""
LONGEST_PART, LONGEST_FACT = 1 << 17, 200
"""Characters; a device may say more."""


@dataclass(frozen=True)
class Identity:
    """A device, as far as it tells; None: it does not."""

    model: str | None = None
    soc: str | None = None
    os: str | None = None
    """The system and its build."""
    kernel: str | None = None
    abi: str | None = None
    """What programs for it are built for, in its system's own words: ``arm64-v8a``, ``aarch64``, ``x86_64``."""
    cores: int | None = None
    memory_bytes: int | None = None
    root: bool | None = None
    """Whether commands run as root."""


async def ask(device: Device) -> Identity:
    """Ask a device what it is. Raises ``Gone``, ``Transient``, ``DeviceError`` where it has no shell."""
    mark = secrets.token_hex(8)
    lines = [f"echo; echo '{mark} {name}'; {{ {line}; }} 2>/dev/null" for name, line in PARTS.items()]
    done = await run(device, ["sh", "-c", "\n".join([*lines, ":"])])
    if done.status:
        raise DeviceError(
            f"{device.name}: expected a shell, got exit status {done.status}: {done.complaints[-200:]}"
        )
    return identity(parts(done.out.decode(errors="replace"), mark))


def parts(said: str, mark: str) -> dict[str, str]:
    """Return what was said after each line of ``mark`` and a name."""
    _, *pieces = re.split(rf"^{re.escape(mark)} (\w+)$", said, flags=re.MULTILINE)
    return {name: text[:LONGEST_PART] for name, text in zip(pieces[::2], pieces[1::2], strict=True)}


def identity(said: Mapping[str, str]) -> Identity:
    """Return what the parts of ``PARTS`` mean; none of them must be there, or make sense."""
    system, release, machine = _three(said.get("uname", ""))
    props = properties(said.get("getprop", ""))
    cpus = said.get("cpuinfo", "")
    return Identity(
        model=_first(
            _joined(props.get("ro.product.manufacturer"), props.get("ro.product.model")),
            *_lines(said.get("model", ""))[:1],
            _joined(*_lines(said.get("dmi", ""))[:2]),
        ),
        soc=_first(
            _joined(props.get("ro.soc.manufacturer"), props.get("ro.soc.model")),
            props.get("ro.board.platform"),
            *_lines(said.get("compatible", ""))[-1:],
            _after(r"(?:Hardware|model name)\s*:(.*)", cpus),
        ),
        os=_first(android(props), _joined(os_release(said.get("release", "")), tegra(said.get("tegra", "")))),
        kernel=_joined(system, release),
        abi=_first(props.get("ro.product.cpu.abi"), machine),
        cores=cores(said.get("present", ""), cpus),
        memory_bytes=memory(said.get("meminfo", "")),
        root={"0": True, "": None}.get(said.get("user", "").strip(), False),
    )


def properties(text: str) -> dict[str, str]:
    """``[ro.product.model]: [Pixel 8]``, a line each, as ``getprop`` prints them."""
    return dict(re.findall(r"^\[([^\]\n]*)\]: \[([^\n]*)\]$", text, re.MULTILINE))


def android(props: Mapping[str, str]) -> str | None:
    """The release and the build, ``Android 14 (UQ1A.240105.004)``; None where it is none."""
    if not (release := props.get("ro.build.version.release")):
        return None
    build = props.get("ro.build.display.id") or props.get("ro.build.id")
    return f"Android {release} ({build})" if build else f"Android {release}"


def os_release(text: str) -> str | None:
    """The name for people, of ``/etc/os-release``."""
    return _after(r"PRETTY_NAME=[\"']?([^\"'\n]*)", text)


def tegra(text: str) -> str | None:
    """The release of Jetson Linux, ``L4T 36.3.0``, of ``# R36 (release), REVISION: 3.0, ...``."""
    found = re.search(r"^# R(\d{1,4}) \(release\), REVISION: ([\d.]{1,16})", text, re.MULTILINE)
    return f"L4T {found[1]}.{found[2]}" if found else None


def cores(present: str, cpuinfo: str) -> int | None:
    """How many cores there are: of ``0-3,6``, five; else as many as ``/proc/cpuinfo`` lists."""
    ranges = [re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", part) for part in present.strip().split(",")]
    counts = [int(r[2] or r[1]) - int(r[1]) + 1 for r in ranges if r is not None]
    if counts and len(counts) == len(ranges) and min(counts) > 0:
        return sum(counts)
    return len(re.findall(r"^processor\s*:", cpuinfo, re.MULTILINE)) or None


def memory(meminfo: str) -> int | None:
    """Bytes of memory that the system has, by ``MemTotal`` of ``/proc/meminfo``."""
    found = re.search(r"^MemTotal:\s*(\d{1,15}) kB", meminfo, re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def _three(text: str) -> list[str | None]:
    return [*_lines(text)[:3], None, None, None][:3]


def _lines(text: str) -> list[str]:
    return [line for raw in text.splitlines() if (line := _clean(raw))]


def _after(pattern: str, text: str) -> str | None:
    found = re.search(rf"^{pattern}", text, re.MULTILINE)
    return _clean(found[1]) or None if found else None


def _first(*texts: str | None) -> str | None:
    return next((clean for text in texts if text and (clean := _clean(text))), None)


def _joined(*texts: str | None) -> str | None:
    return " ".join(clean for text in texts if text and (clean := _clean(text))) or None


def _clean(text: str) -> str:
    """Without what a terminal would obey, and not longer than a line."""
    return "".join(c for c in text if c.isprintable()).strip()[:LONGEST_FACT]
