"""The loop on the device, in the real shells that run it, and what is made of its words."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melt_stream.devices.loop import Ended, Parser, Sample, Shown
from melt_stream.devices.runner import Runner, found, probe
from melt_stream.errors import DeviceError


def one(kind: str, *words: str):
    missing = shutil.which(words[0]) is None
    return pytest.param(
        Runner(kind, words), id=f"{kind} {words[0]}",
        marks=pytest.mark.skipif(missing, reason=f"expected {words[0]}: apt-get install {words[0]}"),
    )  # fmt: skip


QUICK = [one("shell", "bash"), one("shell", "mksh"), one("python3", sys.executable)]
SLOW = [
    one("date", "dash"),
    one("uptime", "dash"),
    one("sleep", "busybox", "sh"),
    one("uptime", "busybox", "sh"),
]
EVERY = [*QUICK, *SLOW]
ODD = "ä\n two  spaces \\n %s $HOME 'quoted' \"so\"\n\n"


def heard(said: bytes, files: int, step: int = 7) -> tuple[list, Ended | None]:
    parser, found = Parser(files), []
    for at in range(0, len(said), step):
        found += parser.feed(said[at : at + step])
    return found, parser.finish()


def spoken(runner: Runner, hz: float, until: bytes, story: list[bytes], *, jitter: bool = False) -> bytes:
    """What the loop says to a story: each part of it is sent when the loop has said ``until`` so many times more."""
    line = runner.loop(["/dev/null"], hz, jitter=jitter)
    with subprocess.Popen(["/bin/sh", "-c", line], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as loop:
        assert loop.stdin is not None
        assert loop.stdout is not None
        said = b""
        for k, part in enumerate(story, 1):
            while said.count(until) < k:
                more = loop.stdout.read1()
                assert more, said
                said += more
            loop.stdin.write(part)
            loop.stdin.flush()
        loop.stdin.close()
        return said + loop.stdout.read()


@pytest.mark.parametrize("runner", EVERY)
def test_files_come_whole_whatever_is_in_them_and_one_that_is_not_there_is_told(runner, tmp_path):
    (tmp_path / "odd one's").write_text(ODD)
    (tmp_path / "empty").write_text("")
    paths = [str(tmp_path / name) for name in ("odd one's", "gone", "empty")]
    with subprocess.Popen(
        ["/bin/sh", "-c", runner.loop(paths, 50, jitter=False)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as loop:
        assert loop.stdin is not None
        assert loop.stdout is not None
        said = b""
        while said.count(b"S ") < 2:
            said += loop.stdout.read1()
        loop.stdin.close()
        said += loop.stdout.read()
    (first, *_), ended = heard(said, 3)
    assert isinstance(first, Sample)
    assert first.texts == [ODD, None, ""]
    assert first.slot == 0
    assert 0 <= first.after - first.before < 10_000_000
    assert ended is not None
    assert ended.cpu_s is not None


@pytest.mark.parametrize("jitter", [False, True])
@pytest.mark.parametrize("runner", EVERY)
def test_slots_are_numbered_on_a_grid_and_commands_are_obeyed(runner, jitter):
    hz = min(100, runner.most_hz)
    said = spoken(
        runner,
        hz,
        b"S ",
        [b"", b"clock 3\n", b"", b"", b"clo", b"", b"ck 4\n", b"", b"stop\n"],
        jitter=jitter,
    )
    found, ended = heard(said, 1)
    assert ended is not None
    assert {said.number for said in found if isinstance(said, Shown)} <= {3, 4}
    assert 3 in {said.number for said in found if isinstance(said, Shown)}
    samples = [said for said in found if isinstance(said, Sample)]
    slots = [sample.slot for sample in samples]
    assert slots == sorted(set(slots))
    assert len(samples) >= 5
    start, slot_us = samples[0].before, 1e6 / hz
    late = jitter or runner.kind not in {"shell", "python3"}  # the first may be, up to a slot
    early = slot_us + runner.resolution if late else 2000
    for sample in samples[1:]:
        assert sample.before - start >= sample.slot * slot_us - early


def test_what_runs_it_is_found_best_first_and_what_cannot_is_told():
    asked = subprocess.run(["/bin/sh", "-c", probe()], capture_output=True, text=True, check=True)
    best = found(asked.stdout, "board")
    assert best.kind in {"shell", "python3"}
    if Path("/bin/sh").resolve().name == "dash":
        assert best.words != ("sh",)
    with pytest.raises(
        DeviceError, match=r"board: expected a shell with EPOCHREALTIME .*got 'none'; install bash"
    ):
        found("", "board")
    with pytest.raises(DeviceError, match="got 'Welcome to BusyBox'"):
        found("Welcome to BusyBox\n", "board")


@pytest.mark.skipif(None in map(shutil.which, ("busybox", "dash")), reason="expected busybox and dash")
def test_a_board_with_less_gets_the_slower_loop(tmp_path):
    def board(shell, **programs):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        for name, program in {"sh": shell, **programs}.items():
            (folder / name).symlink_to(shutil.which(program))
        asked = subprocess.run(
            [str(folder / "sh"), "-c", probe()], env={"PATH": str(folder)}, capture_output=True, text=True, check=True
        )  # fmt: skip
        return asked.stdout

    assert found(board("busybox"), "board") == Runner("sleep", ("sh",))
    assert found(board("dash", sleep="sleep", date="date"), "board") == Runner("date", ("sh",))
    assert found(board("dash", sleep="busybox", date="busybox"), "board") == Runner("uptime", ("sh",))
    assert board("dash", date="date") == ""
    assert found(board("dash", python3=sys.executable), "board") == Runner("python3", ("python3",))


@pytest.mark.parametrize(
    "said",
    [
        b"S 0 1.000000 2.000000 3 4\n", b"S 0 1 2.000000 3\n", b"S 0 1.000000 2.000000 9999999999\n", b"login:\n",
        b"S x 1.000000 2.000000 0\n", b"C 1\n", b"x" * 5000,
    ],
)  # fmt: skip
def test_what_it_cannot_have_said_is_an_error_that_quotes_it(said):
    with pytest.raises(DeviceError, match="from the loop on the device, got"):
        list(Parser(1).feed(said))


texts = st.lists(
    st.none() | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40),
    min_size=2,
    max_size=2,
)


@given(st.lists(texts | st.integers(0, 99), max_size=6), st.integers(1, 50))
def test_whatever_was_said_is_heard_in_pieces_of_any_size(story, step):
    said, want = b"", []
    for k, part in enumerate(story):
        if isinstance(part, int):
            said += f"C {part} {k}.000001\n".encode()
            want.append(Shown(part, k * 1_000_000 + 1))
            continue
        data = [None if text is None else text.encode() for text in part]
        lengths = " ".join(str(-1 if text is None else len(text)) for text in data)
        said += f"S {k} {k}.000000 {k},500000 {lengths}\n".encode() + b"".join(text or b"" for text in data)
        want.append(Sample(k, k * 1_000_000, k * 1_000_000 + 500_000, part))
    found, ended = heard(said + b"E\n0m01.50s 0m0.25s\n0m0s 0m0s\n", 2, step)
    assert found == want
    assert ended == Ended(1.75)
    assert heard(said, 2, step)[1] is None
