"""Following a file: real tails of GNU and of Android's toybox, in a real shell, over a real adb server."""

from __future__ import annotations

import shutil
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from melt_stream.devices import Happened, Line, Local, Place, followed, logcat, logged
from melt_stream.devices.adb import Adb
from melt_stream.outlet import Hub
from tests.emulators.playing_android import ADBS, playing, serving

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="expected bash")


@dataclass
class With(Place):
    """This machine, with the tail of our choice first on its PATH."""

    tools: str = ""

    async def shell(self) -> str:
        return "bash"

    def __post_init__(self) -> None:
        here, tools = Local("board"), self.tools

        class Device(Local):
            def channel(self, command):
                return here.channel(f"PATH={tools}:$PATH; export PATH; {command}")

        self.device = Device("board")


@pytest.fixture(params=["GNU", "toybox"])
def place(request, tmp_path):
    if (tail := shutil.which("tail" if request.param == "GNU" else "toybox")) is None:
        pytest.skip("expected toybox")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "tail").symlink_to(tail)
    return With(tools=str(tmp_path / "bin"))


class Heard:
    """What was followed so far."""

    def __init__(self):
        self.items, self._more = [], trio.Event()

    async def take(self, place, path, whole):
        async with aclosing(followed(place, Hub().outlet("it"), str(path), whole=whole)) as items:
            async for item in items:
                self.items.append(item)
                self._more.set()
                self._more = trio.Event()

    @property
    def texts(self):
        return [item.text if isinstance(item, Line) else "!" for item in self.items]

    async def until(self, *texts):
        with trio.move_on_after(20):
            while self.texts != list(texts):
                await self._more.wait()
        assert self.texts == list(texts)


@asynccontextmanager
async def following(place, path, *, whole=False):
    heard = Heard()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(heard.take, place, path, whole)
        yield heard
        nursery.cancel_scope.cancel()


def write(path, text):
    with path.open("a") as file:
        file.write(text)


async def test_a_file_that_comes_late_grows_rotates_and_is_cut_short(place, tmp_path):
    path = tmp_path / "a log"
    async with following(place, path, whole=True) as heard:
        write(path, "one\n  two \\n\n")
        await heard.until("one", "  two \\n")
        write(path, "hal")
        write(path, "f\n")
        await heard.until("one", "  two \\n", "half")
        path.rename(tmp_path / "old")
        write(path, "new\n")
        await heard.until("one", "  two \\n", "half", "!", "new")
        path.write_text("")
        write(path, "-\n")
        await heard.until("one", "  two \\n", "half", "!", "new", "!", "-")
    lost = [item.what for item in heard.items if isinstance(item, Happened)]
    assert lost == [
        f"{path} was exchanged: what was written to the old one after that is not read",
        f"{path} was cut short: what was not read yet is lost",
    ]
    ticks = [item.tick for item in heard.items]
    assert ticks == sorted(ticks)


async def test_from_its_end_only_what_is_new_comes(place, tmp_path):
    path = tmp_path / "log"
    path.write_text("old\n" * 20)
    async with following(place, path) as heard:
        while not heard.items:  # nothing says when tail has begun
            write(path, "new\n")
            await trio.sleep(0.05)
    assert set(heard.texts) == {"new"}


async def test_over_a_real_adb_server(tmp_path):
    path = tmp_path / "log"
    path.write_text("one\n")
    with serving(ADBS[0]) as server:
        async with playing() as (_, it):
            place = Place(Adb("phone", it["serial"], port=server.port))
            async with following(place, path, whole=True) as heard:
                await heard.until("one")
                write(path, "two\n")
                await heard.until("one", "two")
    assert all(item.tick > 10**15 for item in heard.items)  # us since 1970


def test_a_phones_log_has_its_own_stamps():
    assert logged("     1732465712.123456789  1234  5678 I MyApp   : token 3: done") == (
        1732465712_123456789, 1, "I", "MyApp", "token 3: done",
    )  # fmt: skip
    assert logged("1732465712.123  1  2 E a b: c") == (1732465712_123000000, 1_000_000, "E", "a b", "c")
    assert logged("--------- beginning of main") is None
    assert logcat(["MyApp:I"])[-2:] == ["-s", "MyApp:I"]
    assert logcat()[-2:] == ["-T", "1"]


@settings(deadline=None)  # of a busy machine
@given(st.text())
def test_whatever_a_log_says_is_read_or_not(text):
    found = logged(text)
    assert found is None or found.ns >= 0
