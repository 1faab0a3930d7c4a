"""A machine that a real OpenSSH server lets one key into, on a loopback port that we hold.

Each connection gets a server of its own (``sshd -i``), so that connections can be cut or held up by killing or stopping processes.
As root the machine has mounts, processes, a monotonic clock and a user of its own, in namespaces that end with it.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import trio

from melt_stream.errors import ConfigError

SSHD = "/usr/sbin/sshd"
CONFIG = """
HostKey {root}/host_key
AuthorizedKeysFile {root}/id.pub
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
UseDNS no
PrintMotd no
PrintLastLog no
PidFile none
Subsystem sftp internal-sftp
SetEnv {environment}
"""
MAKE = """
root=$1 closed=$2
shift 2
n=0
for each in "$@"; do
    n=$((n + 1))
    [ $n -le $closed ] || { mkdir "$root/kept$n" && mount --bind "$each" "$root/kept$n"; }
done
n=0
for each in "$@"; do
    n=$((n + 1))
    if [ $n -le $closed ]; then
        mount -t tmpfs -o mode=755 hidden "$each"
    else
        mkdir -p "$each" && mount --bind "$root/kept$n" "$each"
    fi
done
set -- "$root"
mount --bind "$1/sys" /sys && mount --bind "$1/passwd" /etc/passwd &&
    mount --bind "$1/boot_id" /proc/sys/kernel/random/boot_id && mount -t tmpfs run /run && mkdir /run/sshd &&
    exec bash -c 'echo up; while read -r line; do :; done'
"""
SHARED = Path("/dev/shm")  # noqa: S108 - where glibc has shared memory
USER = "nvidia"
NO_SHELLS = ("nologin", "false")
USER_ID = 1000
"""Not root's: of what root runs, sshd passes no signal on."""


@dataclass
class Machine:
    """One machine, whose files of its own are below ``root``."""

    root: Path
    offset_s: float = 0.0
    """Its wall clock is ahead by so much; by libfaketime, as is ``rate``."""
    rate: float = 1.0
    """How much faster than ours its clocks run."""
    uptime_s: float = 0.0
    """Its monotonic clock is ahead by so much; only as root."""
    own: bool = field(default_factory=lambda: os.geteuid() == 0)
    """Whether it has namespaces."""
    cut: bool = False
    """Whether a new connection is closed at once."""
    environment: dict[str, str] = field(default_factory=dict)
    """Variables of every session, beside PATH."""
    running: list[trio.Process] = field(default_factory=list, init=False)
    """The server of each connection."""
    _enter: list[str] = field(default_factory=list, init=False)

    @property
    def user(self) -> str:
        """Whom it lets in."""
        return USER if self.own else pwd.getpwuid(os.geteuid()).pw_name

    @asynccontextmanager
    async def up(self, host: str, port: int) -> AsyncIterator[None]:
        """Be there for the time of the body. Raises ``ConfigError`` where a program is missing."""
        if not self.own and Path(shell := pwd.getpwuid(os.geteuid()).pw_shell).name in NO_SHELLS:
            raise ConfigError(
                f"expected a user with a shell, whom sshd lets in, got {self.user} with {shell}; try: another user, or root"
            )
        await self._keys(host, port)
        self.boot()
        (self.root / "home").mkdir()
        async with self._clocks() as clocks, self._namespaces():
            path = f"{self.root}/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
            environment = {"PATH": path, **self.environment, **clocks}
            words = " ".join(f'"{name}={value}"' for name, value in environment.items())
            (self.root / "sshd_config").write_text(CONFIG.format(root=self.root, environment=words))
            try:
                yield
            finally:
                self.signal(signal.SIGKILL)

    async def serve(self, stream: trio.SocketStream) -> None:
        """Let the server talk to who has connected."""
        if self.cut:
            return
        command = [
            *self._enter,
            _found(SSHD, "openssh-server"),
            "-i",
            "-f",
            str(self.root / "sshd_config"),
            "-E",
            str(self.root / "log"),
        ]
        fd = stream.socket.fileno()
        process = await trio.lowlevel.open_process(
            command, stdin=fd, stdout=fd, stderr=subprocess.DEVNULL, process_group=0
        )
        self.running.append(process)
        try:
            await stream.aclose()  # the server has it now: the connection ends when that does
            await process.wait()
        finally:
            self.running.remove(process)
            _kill(process, signal.SIGKILL)
            with trio.CancelScope(shield=True):
                await process.wait()

    def boot(self) -> None:
        """Begin another boot, as far as it shows: the kernel's id of it."""
        (self.root / "boot_id").write_text(
            f"{uuid.uuid4()}\n"
        )  # the very file is mounted: it may not be replaced

    async def halt(self) -> None:
        """End all that runs there."""
        self.signal(signal.SIGKILL)
        if self.own:
            await trio.run_process([*self._enter, "sh", "-c", "kill -KILL -1 2>/dev/null"], check=False)

    def signal(self, number: int) -> None:
        """Send a signal to every connection's server; what they have started goes on."""
        for process in self.running:
            _kill(process, number)

    async def _keys(self, host: str, port: int) -> None:
        keygen = _found("ssh-keygen", "openssh-client")
        for name in ("host_key", "id"):
            file = str(self.root / name)
            await trio.run_process([keygen, "-q", "-t", "ed25519", "-N", "", "-C", "melt_stream", "-f", file])
        key = (self.root / "host_key.pub").read_text()
        (self.root / "known_hosts").write_text(f"[{host}]:{port} {key}")

    def _let_in(self) -> None:
        """Make a user whose home it is."""
        self.root.chmod(0o755)
        os.chown(self.root / "home", USER_ID, USER_ID)
        mine = f"{USER}:x:{USER_ID}:{USER_ID}::{self.root}/home:/bin/bash\n"
        (self.root / "passwd").write_text(mine + Path("/etc/passwd").read_text())

    @asynccontextmanager
    async def _clocks(self) -> AsyncIterator[Mapping[str, str]]:
        """Yield the variables that give a process the machine's clocks; they share one start."""
        if self.rate == 1 and not self.offset_s:
            yield {}
            return
        command = [
            _found("faketime", "faketime"),
            "-f",
            f"{self.offset_s:+.6f} x{self.rate:.9f}",
            "sh",
            "-c",
            "env; echo; exec cat",
        ]
        async with _helper(command) as helper:
            lines = (await _said(helper, b"\n\n")).decode().splitlines()
            pairs = (line.partition("=")[::2] for line in lines)
            clocks = {
                name: value for name, value in pairs if name.startswith("FAKETIME") or name == "LD_PRELOAD"
            }
            semaphore, memory = clocks["FAKETIME_SHARED"].split(" ")
            for name in (f"sem.{semaphore[1:]}", memory[1:]):  # theirs too, who are not us
                (SHARED / name).chmod(0o666)
            yield clocks

    @asynccontextmanager
    async def _namespaces(self) -> AsyncIterator[None]:
        if not self.own:
            yield
            return
        self._let_in()
        ahead = [f"--monotonic={self.uptime_s:.0f}", f"--boottime={self.uptime_s:.0f}"]
        unshare = [
            _found("unshare", "util-linux"),
            "-m",
            "-p",
            "-T",
            *ahead,
            "--fork",
            "--kill-child",
            "--mount-proc",
        ]
        closed, ours = _closed()
        given = [str(self.root), str(len(closed)), *closed, *ours]
        async with _helper([*unshare, "sh", "-c", MAKE, "sh", *given]) as helper:
            await _said(helper, b"up\n")
            self._enter = [_found("nsenter", "util-linux"), "-t", _child(helper.pid), "-m", "-p", "-T"]
            yield


@asynccontextmanager
async def _helper(command: list[str]) -> AsyncIterator[trio.Process]:
    """Run what stays until its stdin ends."""
    process = await trio.lowlevel.open_process(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process
    finally:
        with trio.CancelScope(shield=True):
            await process.stdin.aclose()
            await process.stdout.aclose()
            await process.wait()


async def _said(process: trio.Process, end: bytes) -> bytes:
    assert process.stdout is not None
    said = b""
    while not said.endswith(end):
        if not (data := await process.stdout.receive_some()):
            raise ConfigError(
                f"expected the machine's helpers to begin, got their end after {said!r}; see its words above"
            )
        said += data
    return said


def _closed() -> tuple[list[str], list[str]]:
    """Return the folders that its user may not enter, and what of Python (and of us) lies in there: the machine has these alone."""
    ours = {Path(sys.base_prefix).resolve(), Path(sys.prefix).resolve(), Path(__file__).resolve().parents[2]}
    private = {folder for path in ours for folder in path.parents if not folder.stat().st_mode & 0o001}
    outer = [folder for folder in private if not private.intersection(folder.parents)]
    inside = [path for path in ours if any(path.is_relative_to(folder) for folder in outer)]
    return sorted(map(str, outer)), sorted(map(str, inside))


def _child(pid: int) -> str:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0]


def _kill(process: trio.Process, number: int) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)


def _found(program: str, package: str) -> str:
    if (path := shutil.which(program)) is None:
        raise ConfigError(f"expected {program}, got none; try: apt-get install {package}")
    return path
