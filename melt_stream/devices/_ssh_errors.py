"""What asyncssh's errors mean to who uses a device, and what to try."""

from __future__ import annotations

import socket
from typing import Any

import asyncssh

from melt_stream.devices.channel import Gone
from melt_stream.errors import ConfigError, DeviceError


class HostKeyUnknown(DeviceError):
    """Nobody has vouched for this machine's key yet."""


class HostKeyChanged(DeviceError):
    """The machine has another key than the one that is known: it was installed anew, or it is another."""


class KeyRefused(DeviceError):
    """The machine accepts none of our keys."""


def meaning(
    exc: Exception, name: str, address: str, client: Client | None = None, *, was_there: bool = True
) -> Exception:
    """Say what an error of asyncssh's means; what it does not raise on purpose is returned as it is."""
    where = f"{name} ({address})"
    match exc:
        case asyncssh.HostKeyNotVerifiable() if client is not None:
            return client.error(where)
        case asyncssh.PermissionDenied():
            return KeyRefused(
                f"{where}: expected one of our keys to be accepted, got: {exc.reason}; try: ssh-copy-id, or identity ="
            )
        case (
            asyncssh.KeyImportError()
            | asyncssh.KeyEncryptionError()
            | FileNotFoundError()
            | PermissionError()
        ):
            return DeviceError(
                f"{where}: expected a key or a configuration, got: {exc}; try: ssh-add, or identity ="
            )
        case asyncssh.ConfigParseError():
            return ConfigError(f"{where}: expected an ssh configuration, got: {exc}")
        case socket.gaierror() if not was_there:
            return DeviceError(
                f"{where}: expected a machine of that name, got: {exc.strerror}; try: getent hosts NAME"
            )
        case asyncssh.SFTPNoSuchFile() | asyncssh.SFTPPermissionDenied() | asyncssh.SFTPFailure():
            return DeviceError(f"{where}: expected to copy a file, got: {exc.reason}")
        case OSError() | TimeoutError() | asyncssh.Error() | asyncssh.ChannelListenError():
            return Gone(f"{where}: expected a link, got: {exc}; try: ssh -v {address}")
    return exc


class Client(asyncssh.SSHClient):
    """Sees the machine's key where it is not a known one, and the end of the connection."""

    def __init__(self) -> None:
        self.known: Any = b""
        self.tunnel: asyncssh.SSHClientConnection | None = None
        self.lost = False
        self._seen: tuple[str, str, int, asyncssh.SSHKey] | None = None

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        self._seen = host, addr, port, key
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - its channels tell it
        self.lost = True

    def error(self, where: str) -> DeviceError:
        """Tell an unknown key from a changed one, and how to accept it."""
        if self._seen is None:
            return HostKeyUnknown(
                f"{where}: expected a key that is known, got a certificate that is not valid"
            )
        host, addr, port, key = self._seen
        got = f"got {key.get_algorithm()} {key.get_fingerprint()}"
        place = host if port == asyncssh.DEFAULT_PORT else f"[{host}]:{port}"
        trusted = asyncssh.match_known_hosts(
            self.known, host, addr, None if port == asyncssh.DEFAULT_PORT else port
        )[0]
        if not trusted:
            return HostKeyUnknown(
                f"{where}: expected a known host key, {got}; if that is what `ssh-keygen -lf` says on the machine itself, "
                f"try: ssh-keyscan -p {port} {host} >> ~/.ssh/known_hosts (or the file of known_hosts =)"
            )
        return HostKeyChanged(
            f"{where}: expected the host key {trusted[0].get_fingerprint()}, {got}: somebody may be listening; if the machine "
            f"was installed anew, try: ssh-keygen -R '{place}', and accept the new one"
        )
