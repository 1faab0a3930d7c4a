"""Files kept on a device: pushed once, resumed where cut, checked before they count."""

from __future__ import annotations

import hashlib
import os
from contextlib import asynccontextmanager

import pytest

from melt_stream.devices import Gone, Local, run
from melt_stream.devices import store as stores
from melt_stream.devices.store import Store, opened
from melt_stream.errors import ConfigError, DeviceError

MODEL = os.urandom(3_000_000)


class Counting(Local):
    """Counts what goes over the link, and may cut it after so many bytes."""

    def __init__(self, cut_after=None):
        super().__init__("board")
        self.sent, self.cut_after = 0, cut_after

    @asynccontextmanager
    async def channel(self, command):
        async with super().channel(command) as channel:
            send = channel.send

            async def counted(data):
                if self.cut_after is not None and self.sent + len(data) > self.cut_after:
                    self.cut_after = None
                    raise Gone("board: cut")
                self.sent += len(data)
                await send(data)

            channel.send = counted
            yield channel


@pytest.fixture
def model(tmp_path):
    (tmp_path / "tiny.gguf").write_bytes(MODEL)
    return tmp_path / "tiny.gguf"


def kept(device, tmp_path, told=None):
    return Store(device, str(tmp_path / "there"), "x86_64", (told if told is not None else []).append)


async def test_a_file_is_pushed_once_and_lies_under_its_sum(model, tmp_path):
    device = Counting()
    store = kept(device, tmp_path)
    folder = await store.put([model])
    assert folder.endswith(hashlib.sha256(MODEL).hexdigest())
    assert (tmp_path / "there" / folder.rpartition("/")[2] / "tiny.gguf").read_bytes() == MODEL
    assert device.sent == len(MODEL)
    assert await store.put([model]) == folder
    assert device.sent == len(MODEL)


async def test_files_that_belong_together_lie_side_by_side_and_may_be_run(model, tmp_path):
    (tmp_path / "server").write_text("#!/bin/sh\n")
    (tmp_path / "server").chmod(0o755)
    folder = await kept(Local("board"), tmp_path).put([tmp_path / "server", model])
    assert (await run(Local("board"), ["ls", folder])).out == b"server\ntiny.gguf\n"
    assert os.access(f"{folder}/server", os.X_OK)
    assert not os.access(f"{folder}/tiny.gguf", os.X_OK)


async def test_a_push_that_was_cut_goes_on_where_it_was(model, tmp_path):
    device = Counting(cut_after=2_000_000)
    store = kept(device, tmp_path)
    with pytest.raises(Gone, match="cut"):
        await store.put([model])
    (part,) = (tmp_path / "there").rglob("*.part")
    there = part.stat().st_size
    assert 0 < there < len(MODEL)
    sent = device.sent
    folder = await store.put([model])
    assert device.sent - sent == len(MODEL) - there
    assert (await run(Local("board"), ["cat", f"{folder}/tiny.gguf"])).out == MODEL


@pytest.mark.parametrize("left", [b"junk", os.urandom(len(MODEL) + 1)], ids=["another", "too long"])
async def test_what_another_try_left_is_no_part_of_the_file(model, tmp_path, left):
    store = kept(Local("board"), tmp_path)
    folder = tmp_path / "there" / hashlib.sha256(MODEL).hexdigest()
    folder.mkdir(parents=True)
    (folder / "tiny.gguf.part").write_bytes(left)
    await store.put([model])
    assert (folder / "tiny.gguf").read_bytes() == MODEL


async def test_a_big_push_is_told_and_one_without_room_is_refused(model, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(stores, "WORTH_TELLING", 1_000_000)
    await kept(Local("board"), tmp_path, said).put([model])
    assert said[-1] == "tiny.gguf: 3 of 3 MB are there"
    monkeypatch.setattr(stores, "SPARE", 1 << 60)
    with pytest.raises(DeviceError, match=r"board: tiny\.gguf: expected \d+ MB free in .*, got \d+ MB; try:"):
        await kept(Local("board"), tmp_path / "other").put([model])


async def test_a_file_that_is_not_here_and_a_folder_that_cannot_be_made_are_told(model, tmp_path):
    with pytest.raises(ConfigError, match=r"expected a file for the device, got .*none: No such file"):
        await kept(Local("board"), tmp_path).put([tmp_path / "none"])
    with pytest.raises(DeviceError, match=r"board: expected to make .*tiny\.gguf/there.*, got exit status"):
        await kept(Local("board"), model).put([model])


async def test_a_store_knows_the_devices_processor_and_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    found = await opened(Local("board"), print)
    assert (found.machine, found.folder) == (os.uname().machine, f"{tmp_path}/.cache/melt_stream")
    (tmp_path / "getprop").write_text("#!/bin/sh\necho arm64-v8a\n")
    (tmp_path / "getprop").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    found = await opened(Local("phone"), print)
    assert (found.machine, found.folder) == ("arm64-v8a", "/data/local/tmp/melt_stream")
    assert (await opened(Local("phone"), print, "/mine")).folder == "/mine"
