"""`melt-stream emulate` in one process, `melt-stream record` in another: the energy is the script's."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

MELT = [sys.executable, "-m", "melt_stream"]


@pytest.fixture
def box():
    """The emulated Monsoon, drawing 1.5 W, with lost samples; where to connect."""
    command = [
        *MELT,
        "emulate",
        "monsoon_lvpm",
        "--load",
        "constant:1.5W",
        "--fault",
        "skip@1.2:700",
        "--json",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as playing:
        yield json.loads(playing.stdout.readline())
        playing.send_signal(signal.SIGINT)
        assert playing.wait(10) == 0


def test_its_energy_is_recorded(box, tmp_path):
    assert box["emulator"] == "monsoon_lvpm"
    archive = ["--archive", str(tmp_path)]
    meter = f"monsoon_lvpm:port={box['port']},voltage=4.0"
    subprocess.run(
        [*MELT, "record", "-c", meter, "--seconds", "3", *archive], check=True, capture_output=True
    )
    lost = "(select sum(lost_rows)::int from gaps where reason like 'lost%')"
    ask = f"select avg(watts) as watts, count(*) as n, {lost} as lost from power"
    done = subprocess.run([*MELT, "sql", ask, "--json", *archive], check=True, capture_output=True, text=True)
    (row,) = json.loads(done.stdout)
    watts, rows, lost = row.values()
    assert watts == pytest.approx(1.5, rel=1e-3)
    assert rows > 5000
    assert lost == 700


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["ppk3"], "expected a emulator's name"),
        (["monsoon_lvpm", "--load", "sine"], "--load sine: expected constant:1.5W"),
        (["monsoon_lvpm", "--fault", "melt@1"], "expected one of junk, lose, over_current"),
        (["monsoon_lvpm:serial=5"], "expected a key of MonsoonLvpm"),
    ],
)
def test_a_wrong_order_is_told(arguments, said):
    done = subprocess.run([*MELT, "emulate", *arguments], check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert said in done.stderr
