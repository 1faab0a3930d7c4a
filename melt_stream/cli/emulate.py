"""``melt-stream emulate``: play an instrument on a pty or socket, for tests and for those who have none."""

from __future__ import annotations

import signal
import sys
from typing import Annotated

import trio
from cyclopts import Parameter

from melt_stream import plugins
from melt_stream.cli._common import NO_OPTIONS, Options, print_json, say
from melt_stream.cli._specs import parse
from melt_stream.emulators import Emulator, Faults, Load

GROUP = "melt_stream.emulators"


def emulate(
    name: Annotated[
        str, Parameter(help="NAME[:key=value,...]: a plug-in of the group melt_stream.emulators.")
    ],
    /,
    *,
    load: Annotated[
        str, Parameter(help="constant:1.5W, square:0.5W,4W,100ms, ramp:0W,4W,2s, or a file (.csv, .parquet).")
    ] = "constant:1W",
    fault: Annotated[
        tuple[str, ...],
        Parameter(
            negative="",
            help="KIND[@SECONDS[/EVERY]][:AMOUNT], as in lose@1.5:100, skip@2:40, stall@3:0.5, unplug@4, stale, "
            "rate:150 (ppm); can be given several times.",
        ),
    ] = (),
    options: Options = NO_OPTIONS,
) -> None:
    """Be an instrument until interrupted: print where to connect (one line), then play the load at true rate."""
    kind, settings = parse(name)
    cls = plugins.load(GROUP, kind)
    faults = Faults.parse(fault, getattr(cls, "own_faults", ()))
    emulator: Emulator = plugins.configure(cls, settings, name)
    emulator.load, emulator.faults = Load.parse(load), faults
    trio.run(_play, kind, emulator, options.json)


async def _play(name: str, emulator: Emulator, as_json: bool) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            place = await nursery.start(emulator.play)
            told = {"emulator": name, **place, "began_ns": emulator.began, "load": emulator.load.text}
            if as_json:
                print_json(told)
            else:
                for key, value in told.items():
                    say(f"{key:10} {value}")
            sys.stdout.flush()
            async for _ in signals:
                nursery.cancel_scope.cancel()
                break
