"""The loop on the device, in the real shells that run it, and what is made of its words."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melt_stream.devices.loop import Ended, Parser, Sample, Shown, probe, program
from melt_stream.errors import DeviceError

SHELLS = [
    pytest.param(
        shell, marks=pytest.mark.skipif(shutil.which(shell) is None, reason=f"expected {shell}: apt-get install {shell}")
    )
    for shell in ("bash", "mksh")
]  # fmt: skip
ODD = "ä\n two  spaces \\n %s $HOME 'quoted' \"so\"\n\n"


def say(shell: str, paths: list[str], hz: float, commands: bytes, *, jitter: bool = False) -> bytes:
    """What the loop says until its stdin ends; commands are there when it begins."""
    line = program(shell, paths, hz, jitter=jitter)
    done = subprocess.run(
        ["/bin/sh", "-c", line], input=commands, capture_output=True, check=True, timeout=60
    )
    assert done.stderr == b""
    return done.stdout


def heard(said: bytes, files: int, step: int = 7) -> tuple[list, Ended | None]:
    parser, found = Parser(files), []
    for at in range(0, len(said), step):
        found += parser.feed(said[at : at + step])
    return found, parser.finish()


@pytest.mark.parametrize("shell", SHELLS)
def test_files_come_whole_whatever_is_in_them_and_one_that_is_not_there_is_told(shell, tmp_path):
    (tmp_path / "odd one's").write_text(ODD)
    (tmp_path / "empty").write_text("")
    paths = [str(tmp_path / name) for name in ("odd one's", "gone", "empty")]
    (first, *_), ended = heard(say(shell, paths, 50, b""), 3)
    assert isinstance(first, Sample)
    assert first.texts == [ODD, None, ""]
    assert first.slot == 0
    assert 0 <= first.after - first.before < 10_000_000
    assert ended is not None
    assert ended.cpu_s is not None


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("jitter", [False, True])
def test_slots_are_numbered_on_a_grid_and_commands_are_obeyed(shell, jitter):
    script = 'echo "clock 3"; while [ $(($(date +%s%N) / 1000000 - s)) -lt 700 ]; do :; done; echo "clock 4"; echo stop'
    line = program(shell, ["/dev/null"], 100, jitter=jitter)
    done = subprocess.run(
        ["bash", "-c", f"s=$(($(date +%s%N) / 1000000)); {{ {script}; sleep 0.2; }} | {line}"],
        capture_output=True, check=True, timeout=60,
    )  # fmt: skip
    found, ended = heard(done.stdout, 1)
    assert ended is not None
    assert [said.number for said in found if isinstance(said, Shown)] == [3, 4]
    samples = [said for said in found if isinstance(said, Sample)]
    slots = [sample.slot for sample in samples]
    assert slots == sorted(set(slots))
    assert len(samples) >= 5
    start = samples[0].before
    for sample in samples[
        1:
    ]:  # never before its slot, which a loop that was late for others may share with them
        assert sample.before - start >= sample.slot * 10_000 - 10_000
    if not jitter:
        assert all(sample.before - start >= sample.slot * 10_000 - 2000 for sample in samples)


def test_the_first_shell_that_can_is_found_and_dash_cannot():
    found = subprocess.run(
        ["/bin/sh", "-c", probe()], capture_output=True, text=True, check=False
    ).stdout.strip()
    assert found in {"sh", "bash", "mksh"}
    if Path("/bin/sh").resolve().name == "dash":
        assert found != "sh"


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
