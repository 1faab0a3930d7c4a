"""An emulated Jetson for the time of a test, and a device that reaches it; nothing of the user's own ~/.ssh is touched."""

from __future__ import annotations

import shutil
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from melt_stream.devices.ssh import Ssh
from melt_stream.emulators.jetson import Jetson

needed = pytest.mark.skipif(
    shutil.which("/usr/sbin/sshd") is None, reason="expected /usr/sbin/sshd: apt-get install openssh-server"
)


def reached(place, **changed):
    ours = {"config": [], "identity": place["identity"], "known_hosts": place["known_hosts"]}
    return Ssh("orin", f"{place['user']}@{place['host']}:{place['tcp_port']}", **ours | changed)


@asynccontextmanager
async def board(jetson=None):
    """Yield where it is."""
    async with trio.open_nursery() as nursery:
        place = await nursery.start((jetson or Jetson()).play)
        await wait_all_tasks_blocked()  # it listens: what is counted now is all that it needs
        yield place
        nursery.cancel_scope.cancel()
