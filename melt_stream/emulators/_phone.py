"""A phone's inside: its folders, its shell, and its clocks, in namespaces of their own where root allows."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import trio

from melt_stream.errors import DeviceError

BOOT_ID = "proc/sys/kernel/random/boot_id"
SYSTEM = "/system/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
MONOTONIC_S, BOOTTIME_S = 100_000, 200_000
"""How far its clocks are from ours: it slept for a day."""
PATIENCE_S = 10.0
GETPROP = """#!/bin/sh
# getprop: all of them
echo '[ro.build.display.id]: [emulated]
[ro.build.version.release]: [14]
[ro.product.manufacturer]: [melt_stream]
[ro.product.model]: [Emulated]'
"""
_HOLD = "echo $$; exec sleep infinity"
_SETTLE = f"""set -e
mount --make-rprivate /
mount -t tmpfs phone "$1/new"
for each in /*; do
    case $each in /sys | /data | /system) continue ;; esac
    if [ -L "$each" ]; then cp -P "$each" "$1/new/"; elif [ -d "$each" ]; then mkdir "$1/new$each"; mount --rbind "$each" "$1/new$each"; fi
done
for each in sys data system; do mkdir "$1/new/$each"; mount --rbind "$1/$each" "$1/new/$each"; done
mount --bind "$1/{BOOT_ID}" "$1/new/{BOOT_ID}"
cd "$1/new"
pivot_root . .
umount -l .
{_HOLD}
"""


@dataclass
class Phone:
    """Folders like a phone's. ``root`` is where ``/sys`` hangs for the phone's own shell: ``/``, or, without root, our folder."""

    tree: Path
    holder: int | None = None
    """The process that holds its namespaces and its clock, as long as it is on."""
    own_root: bool = False
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def root(self) -> str:
        return "/" if self.own_root else str(self.tree)

    def command(self, line: str) -> Sequence[str]:
        """The words that run a line in its shell; no line: the shell itself."""
        inside = ["nsenter", "-t", str(self.holder), "-m", "-T", "--"] if self.own_root else []
        shell = "/system/bin/sh" if self.own_root else str(self.tree / "system/bin/sh")
        return [*inside, shell, *(["-c", line] if line else [])]

    def find(self, path: str) -> Path:
        """From its name of a file to ours."""
        return Path(f"/proc/{self.holder}/root" if self.own_root else "/", path.lstrip("/"))

    def write(self, files: Mapping[str, str]) -> None:
        """Give files new texts, each at once."""
        for path, text in files.items():
            full = self.tree / path
            full.parent.mkdir(parents=True, exist_ok=True)
            new = full.with_name(f".{full.name}")
            new.write_text(text)
            new.replace(full)

    def boot(self) -> None:
        """Begin another boot, as far as it shows: the kernel's id of it."""
        path = self.tree / BOOT_ID
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{uuid.uuid4()}\n")  # the very file is mounted: it may not be replaced


@asynccontextmanager
async def switched_on(clock: str | None) -> AsyncIterator[Phone]:
    """A phone for the time of the body; ``clock`` is what ``faketime`` makes of its wall clock, if anything."""
    with tempfile.TemporaryDirectory(prefix="phone-") as folder:
        phone = Phone(Path(folder))
        for name in ("new", "sys", "data/local/tmp", "system/bin"):
            (phone.tree / name).mkdir(parents=True)
        phone.boot()
        await trio.to_thread.run_sync(_install, phone.tree / "system/bin")
        async with _held(phone, clock):
            yield phone


def _install(folder: Path) -> None:
    """Put a phone's shell there, and its tools."""
    (folder / "getprop").write_text(GETPROP)
    (folder / "getprop").chmod(0o755)
    shell = shutil.which("mksh") or shutil.which("bash") or "/bin/sh"
    (folder / "sh").symlink_to(shell)
    if toybox := shutil.which("toybox"):
        listed = subprocess.run([toybox], check=True, capture_output=True, text=True).stdout
        for name in {"toybox", *listed.split()} - {"sh", "getprop"}:
            (folder / name).symlink_to(toybox)


@asynccontextmanager
async def _held(phone: Phone, clock: str | None) -> AsyncIterator[None]:
    phone.own_root = os.geteuid() == 0 and all(map(shutil.which, ("unshare", "nsenter", "pivot_root")))
    command: list[str] = []
    if clock is not None:
        if shutil.which("faketime") is None:
            raise DeviceError(
                "expected faketime, for a clock that is off or drifts, got none: apt-get install faketime"
            )
        command += ["faketime", "-f", clock]
    if phone.own_root:
        apart = ["unshare", "-m", "-T", "--monotonic", str(MONOTONIC_S), "--boottime", str(BOOTTIME_S)]
        command += [*apart, "sh", "-c", _SETTLE, "phone", str(phone.tree)]
    elif command:
        command += ["sh", "-c", _HOLD]
    path = SYSTEM if phone.own_root else f"{phone.tree}/system/bin:{SYSTEM}"
    phone.environment = {"PATH": path, "HOME": "/", "TMPDIR": "/data/local/tmp" if phone.own_root else "/tmp"}  # noqa: S108 - the phone's
    if not command:
        yield
        return
    process = await trio.lowlevel.open_process(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        with trio.move_on_after(PATIENCE_S):
            phone.holder = int(await process.stdout.receive_some(64) or -1)
        if phone.holder in {None, -1}:
            why = bytes(await process.stderr.receive_some(500)).decode(errors="replace").strip()
            raise DeviceError(f"expected a phone's own root and clocks, got: {why or 'nothing'}")
        kept = (await trio.Path(f"/proc/{phone.holder}/environ").read_text()).split("\0")
        phone.environment |= dict(
            word.split("=", 1) for word in kept if word.startswith(("LD_PRELOAD=", "FAKETIME"))
        )
        yield
    finally:
        with suppress(ProcessLookupError):  # faketime ends with it, and takes its shared memory away
            os.kill(phone.holder if phone.holder and phone.holder > 0 else process.pid, signal.SIGKILL)
        with trio.CancelScope(shield=True):
            await process.wait()
            await process.stdout.aclose()
            await process.stderr.aclose()
