"""A board or server over ssh, by asyncssh."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import asyncssh
import trio

from melt_stream.devices._ssh_errors import Client, HostKeyChanged, HostKeyUnknown, KeyRefused, meaning
from melt_stream.devices._ssh_link import Link, Session
from melt_stream.devices._sums import sha256_of
from melt_stream.devices.channel import Channel, Gone, quoted, run
from melt_stream.errors import ConfigError, DeviceError

__all__ = ["HostKeyChanged", "HostKeyUnknown", "KeyRefused", "Ssh"]

ADDRESS = re.compile(r"(?:(?P<user>[^@\s]+)@)?(?P<host>\[[^\]\s]+\]|[^:@\s]+)(?::(?P<port>\d{1,5}))?")
CONNECT_S = 10.0
HASHING_S = 600.0
REBOOT = "PATH=$PATH:/usr/sbin:/sbin; reboot || sudo -n reboot"


@dataclass
class Ssh:
    """A machine behind sshd, with keys, agent, ``~/.ssh/config`` and known hosts as the user has them.

    Raises ``HostKeyUnknown``, ``HostKeyChanged``, ``KeyRefused``; ``Gone`` where nobody answers or the link drops.
    """

    name: str
    address: str
    """``user@host:port``; the user and the port may be left to the configuration, and the host may be an alias of it."""
    _: KW_ONLY
    config: list[str] | None = None
    """Files in the place of ``~/.ssh/config``; an empty list: none."""
    identity: str = ""
    """A private key's file; else those that ssh would try, and the agent's."""
    known_hosts: str = ""
    """A file in the place of ``~/.ssh/known_hosts``."""
    jump: str = ""
    """The address of a machine to go through; else ProxyJump of the configuration."""
    keep_alive_s: float = 2.0
    """The link is asked so often, and is taken for dead after three times without an answer."""
    _link: Link | None = field(default=None, init=False, repr=False, compare=False)
    _was_there: bool = field(default=False, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for address in (self.address, self.jump) if self.jump else (self.address,):
            if ADDRESS.fullmatch(address) is None:
                raise ConfigError(f"{self.name}: expected user@host or user@host:port, got {address!r}")

    @asynccontextmanager
    async def channel(self, command: str) -> AsyncIterator[Channel]:
        async with self._linked() as link:
            session = Session(link)
            opening = partial(link.connection.create_session, lambda: session, command, encoding=None)
            try:
                await link.run(opening)
                yield session
            finally:
                await session.end()

    async def push(self, local: Path, remote: str) -> None:
        part = f"{remote}.part"
        async with self._linked() as link:
            await link.run(_transfer, link.connection, "put", str(local), part)
            await self._same(local, part)
            done = await run(self, ["mv", "-f", "--", part, remote])
            if done.status:
                raise DeviceError(f"{self.name}: expected to write {remote}, got: {done.complaints}")

    async def pull(self, remote: str, local: Path) -> None:
        part = local.with_name(local.name + ".part")
        async with self._linked() as link:
            try:
                await link.run(_transfer, link.connection, "get", remote, str(part))
                await self._same(part, remote)
                part.replace(local)
            finally:
                part.unlink(missing_ok=True)

    @asynccontextmanager
    async def forward(self, port: int) -> AsyncIterator[int]:
        async with self._linked() as link:
            listener = await link.run(link.connection.forward_local_port, "127.0.0.1", 0, "127.0.0.1", port)
            try:
                yield listener.get_port()
            finally:
                link.call(listener.close)
                with trio.CancelScope(shield=True), suppress(Gone):
                    await link.run(listener.wait_closed)

    def by_hand(self, command: str) -> str:
        match = ADDRESS.fullmatch(self.address)
        assert match is not None
        words = ["ssh", *(word for file in (self.config or []) for word in ("-F", file))]
        words += ["-p", match["port"]] if match["port"] else []
        words += ["-i", self.identity] if self.identity else []
        words += ["-o", f"UserKnownHostsFile={self.known_hosts}"] if self.known_hosts else []
        words += ["-J", self.jump] if self.jump else []
        user = f"{match['user']}@" if match["user"] else ""
        return quoted([*words, user + match["host"].strip("[]"), command])

    async def reboot(self) -> None:
        """Start it anew, as root or by a ``sudo`` that asks for no password. Raises ``DeviceError`` where neither may."""
        try:
            done = await run(self, ["sh", "-c", REBOOT])
        except Gone:
            return  # it went before it could tell
        if done.status:
            raise DeviceError(
                f"{self.name} ({self.address}): expected to start it anew, got: {done.complaints[-200:]}; "
                "try: root, or a sudo without a password"
            )

    async def _same(self, local: Path, remote: str) -> None:
        """Compare the SHA-256 of both, each computed where the file is. Raises ``DeviceError``."""
        ours = await trio.to_thread.run_sync(sha256_of, local)
        hashing = ["sh", "-c", 'sha256sum <"$1"', "sh", remote]
        done = await run(self, hashing, deadline_s=HASHING_S)
        theirs = done.out.decode(errors="replace")[:64]
        if done.status or theirs != ours:
            got = theirs or done.complaints or f"exit status {done.status} of sha256sum"
            raise DeviceError(f"{self.name}: {remote}: expected SHA-256 {ours} after copying, got {got}")

    @asynccontextmanager
    async def _linked(self) -> AsyncIterator[Link]:
        """Share the connection: opened by the first who asks, closed after the last."""
        if (link := self._link) is None or link.over:
            link = self._link = Link(self.name, self.address, self._through)
            trio.lowlevel.spawn_system_task(link.live, name=f"ssh {self.address}")
        link.users += 1
        try:
            await link.ready.wait()
            if link.failure is not None:
                raise self._meaning(link) from link.failure
            self._was_there = True
            yield link
        finally:
            link.users -= 1
            if not link.users:
                self._link = None if self._link is link else self._link
                link.scope.cancel()
                with trio.CancelScope(shield=True):
                    await link.ended.wait()

    def _meaning(self, link: Link) -> Exception:
        assert link.failure is not None
        return meaning(link.failure, self.name, self.address, link.client, was_there=self._was_there)

    async def _through(self, client: Client) -> asyncssh.SSHClientConnection:
        """Connect, through the jump host if there is one; for the loop of asyncio."""
        if not self.jump:
            return await self._connect(self.address, client)
        tunnel = await self._connect(self.jump, client)
        try:
            return await self._connect(self.address, client, tunnel)
        except BaseException:
            tunnel.abort()
            raise
        finally:
            client.tunnel = tunnel

    async def _connect(self, address: str, client: Client, tunnel: Any = ()) -> asyncssh.SSHClientConnection:
        match = ADDRESS.fullmatch(address)
        assert match is not None
        options = await asyncssh.SSHClientConnectionOptions.construct(
            None,
            host=match["host"].strip("[]"),
            port=int(match["port"]) if match["port"] else (),
            username=match["user"] or (),
            config=() if self.config is None else self.config,
            client_keys=[self.identity] if self.identity else (),
            known_hosts=[self.known_hosts] if self.known_hosts else (),
            keepalive_interval=self.keep_alive_s,
            keepalive_count_max=2,
            connect_timeout=CONNECT_S,
            login_timeout=CONNECT_S,
            client_factory=lambda: client,
            tunnel=tunnel,
        )
        client.known = _known(options.known_hosts)
        return await asyncssh.connect(options.host, options=options, known_hosts=client.known)


async def _transfer(connection: Any, way: str, source: str, target: str) -> None:
    async with connection.start_sftp_client() as sftp:
        await getattr(sftp, way)(source, target)


def _known(known_hosts: Any) -> Any:
    """Where known keys are looked up. A configuration that has the check off means that none is known."""
    usual = Path("~/.ssh/known_hosts").expanduser()
    if known_hosts is None:
        return b""
    files = list(known_hosts) or [str(usual)]
    return [file for file in files if Path(file).expanduser().is_file()] or b""
