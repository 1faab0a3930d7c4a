"""What some instruments are told and asked: data, each command with where it is from.

None of these instruments was at hand, nor were their manuals when this was written: the commands are from memory of the
manuals named (docs/meters.md says so too). The instrument's own error queue is read after the set-up, so that a
command that it does not know ends the run's start with the instrument's words.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from melt_stream.collectors._described import Columns, Rails, RailSpec


@dataclass(frozen=True)
class Preset:
    """What a recipe would say."""

    setup: tuple[str, ...]
    query: tuple[str, ...]
    columns: Columns
    hz: float
    """As fast as it is known to measure."""
    port: int = 5025
    rails: Rails = field(default_factory=dict)
    """Empty where the recipe must say: the instrument does not measure power."""


PRESETS = {
    # Keysight Truevolt Series Operating and Service Guide, chapters CONFigure, SENSe, READ?.
    # Current alone: the recipe's rail says the supply's volts.
    "keysight_34465a": Preset(
        setup=(
            "CONF:CURR:DC 3",        # 3 A range: autoranging would cost readings at each step of the load
            "SENS:CURR:DC:NPLC 1",   # a mean over one period of the mains
            "SENS:CURR:DC:ZERO:AUTO OFF",  # else each reading takes twice the time
            "TRIG:SOUR IMM",
            "SAMP:COUN 1",
        ),
        query=("READ?",),
        columns={"amps": "A"},
        hz=20.0,
    ),
    # R&S NGU source measure units, user manual, chapter "Measurement commands". It supplies what it measures.
    "rs_ngu": Preset(
        setup=(),
        query=("MEAS:VOLT?", "MEAS:CURR?"),
        columns={"volts": "V", "amps": "A"},
        hz=10.0,
        rails={"output": RailSpec("dc_in")},
    ),
    # R&S NGM200 power supplies, user manual: as the NGU, with a channel to be chosen.
    "rs_ngm": Preset(
        setup=("INST:NSEL 1",),
        query=("MEAS:VOLT?", "MEAS:CURR?"),
        columns={"volts": "V", "amps": "A"},
        hz=10.0,
        rails={"output": RailSpec("dc_in")},
    ),
    # Yokogawa IM WT310E-17EN (communication interface), groups COMMunicate, NUMeric, RATE. Its Ethernet speaks VXI-11
    # or Modbus; the raw socket is that of a gateway, or use the serial port.
    "yokogawa_wt310": Preset(
        setup=(
            "COMM:HEAD OFF",         # answers without the command's name
            "RATE 100MS",            # the update interval: each value is a mean over it
            "NUM:FORM ASC",
            "NUM:NORM:NUM 3",
            "NUM:NORM:ITEM1 U,1",
            "NUM:NORM:ITEM2 I,1",
            "NUM:NORM:ITEM3 P,1",
        ),
        query=("NUM:NORM:VAL?",),
        columns={"volts_rms": "V", "amps_rms": "A", "watts": "W"},
        hz=10.0,
        rails={"wall": RailSpec("wall", "mean", window_ns=1e8)},
    ),
}  # fmt: skip
