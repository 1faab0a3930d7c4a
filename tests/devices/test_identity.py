"""What a device says that it is: recorded words of real ones, and what a hostile one may say."""

from __future__ import annotations

import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melt_stream.devices import Local
from melt_stream.devices.channel import Gone
from melt_stream.devices.identity import (
    PARTS,
    Identity,
    ask,
    cores,
    identity,
    memory,
    os_release,
    parts,
    tegra,
)

PIXEL = {
    "uname": "Linux\n5.15.110-android14-11-gcc48824eebe8\naarch64\n",
    "getprop": "[ro.product.manufacturer]: [Google]\n[ro.product.model]: [Pixel 8]\n[ro.soc.manufacturer]: [Google]\n"
    "[ro.soc.model]: [Tensor G3]\n[ro.build.version.release]: [14]\n[ro.build.display.id]: [UQ1A.240105.004]\n"
    "[ro.product.cpu.abi]: [arm64-v8a]\n[ro.odd]: [two\nlines]\n[persist.empty]: []\n",
    "cpuinfo": "processor\t: 0\nBogoMIPS\t: 49.15\n\nprocessor\t: 1\n",
    "meminfo": "MemTotal:        7731584 kB\nMemFree:          200000 kB\n",
    "present": "0-8\n",
    "user": "2000\n",
}
ORIN = {
    "uname": "Linux\n5.15.136-tegra\naarch64\n",
    "cpuinfo": "processor\t: 0\nmodel name\t: ARMv8 Processor rev 1 (v8l)\n",
    "meminfo": "MemTotal:       64349704 kB\n",
    "present": "0-11\n",
    "model": "NVIDIA Jetson AGX Orin Developer Kit\n",
    "compatible": "nvidia,p3737-0000+p3701-0005\nnvidia,p3701-0005\nnvidia,tegra234\n",
    "tegra": "# R36 (release), REVISION: 3.0, GCID: 36923193, BOARD: generic, EABI: aarch64, DATE: Fri Jul 19 23:24:25 UTC 2024\n",
    "release": 'NAME="Ubuntu"\nPRETTY_NAME="Ubuntu 22.04.4 LTS"\n',
    "user": "0\n",
}


def test_a_phone():
    assert identity(PIXEL) == Identity(
        "Google Pixel 8", "Google Tensor G3", "Android 14 (UQ1A.240105.004)", "Linux 5.15.110-android14-11-gcc48824eebe8",
        "arm64-v8a", 9, 7731584 * 1024, False,
    )  # fmt: skip


def test_a_jetson():
    assert identity(ORIN) == Identity(
        "NVIDIA Jetson AGX Orin Developer Kit", "nvidia,tegra234", "Ubuntu 22.04.4 LTS L4T 36.3.0", "Linux 5.15.136-tegra",
        "aarch64", 12, 64349704 * 1024, True,
    )  # fmt: skip


def test_what_it_does_not_say_is_not_known():
    assert identity({}) == Identity()
    assert identity({"cpuinfo": "processor : 0\nprocessor : 1\nHardware : BCM2711\n"}) == Identity(
        soc="BCM2711", cores=2
    )
    assert tegra("# R32 (release), REVISION: 7.1, GCID: 1") == "L4T 32.7.1"
    assert tegra("Tegra") is None
    assert os_release("PRETTY_NAME='Alpine Linux v3.19'") == "Alpine Linux v3.19"


@pytest.mark.parametrize(
    ("present", "count"),
    [("0-3,6", 5), ("0", 1), ("", 2), ("3-1", 2), ("0-3,", 2), ("0-99999999", 2), ("x", 2)],
)
def test_cores_are_the_present_ones_else_those_listed(present, count):
    assert cores(present, "processor : 0\nprocessor : 1\n") == count


def test_no_number_is_too_large_and_no_text_obeyed_by_a_terminal():
    assert memory("MemTotal: 99999999999999999999999 kB") is None
    said = identity({"model": "\x1b[31mred\x00\x07 " + "x" * 1000})
    assert said.model is not None
    assert said.model.isprintable()
    assert len(said.model) == 200


@given(
    st.dictionaries(st.sampled_from(sorted(PARTS)), st.text(max_size=200)),
    st.text("0123456789abcdef", min_size=4),
)
def test_whatever_it_says_is_an_identity(said, mark):
    assert isinstance(identity(said), Identity)
    wire = "".join(f"\n{mark} {name}\n{text}\n" for name, text in PIXEL.items())
    assert identity(parts("login banner\n" + wire, mark)) == identity(PIXEL)


async def test_this_machine_tells_by_any_shell():
    shells = [path for name in ("dash", "bash", "mksh") if (path := shutil.which(name))]
    said = {await ask(Local("it", shell)) for shell in shells}
    (one,) = said
    assert one.cores
    assert one.memory_bytes
    assert one.kernel
    with pytest.raises(Gone, match="expected the shell /no/sh"):
        await ask(Local("it", "/no/sh"))
