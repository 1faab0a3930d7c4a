"""What puts a condition back, as plain data: the recorder does it at its end, and its guard where the recorder was killed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from importlib import import_module
from typing import Any

import trio

from melt_stream.devices import Device, Done, Gone, run
from melt_stream.devices.channel import quoted
from melt_stream.errors import DeviceError

COMMAND_S = 15.0
"""How long a command may take."""
PAUSE_S = 0.5
"""Before it is tried again to put back what could not be."""


@dataclass(frozen=True)
class Command:
    """A command that changes something, or looks whether it did."""

    words: Sequence[str]
    pause_s: float = 0.0
    """To wait after it."""
    expect: str = ""
    """What its output must match somewhere, if anything."""
    answer: str = ""
    """What it is told on stdin."""


@dataclass(frozen=True)
class Undo:
    """How one thing becomes what it was."""

    name: str
    before: str
    commands: Sequence[Command]


async def ask(device: Device, command: Command) -> Done:
    """Run a command.

    Raises ``Gone`` or ``Transient`` where the device cannot be asked now, ``DeviceError`` where the command fails, or its output is not as expected.
    """
    done = await run(device, command.words, stdin=command.answer.encode(), deadline_s=COMMAND_S)
    said = heard(done)
    if done.status or not re.search(command.expect, said):
        expected = "exit status 0" if done.status else f"output with {command.expect!r}"
        raise DeviceError(
            f"{device.name}: {quoted(command.words)}: expected {expected}, got {done.status} and {said[-300:]!r}"
        )
    return done


async def carry_out(device: Device, commands: Sequence[Command]) -> str:
    """Run commands one after the other; return what they said. Raises as ``ask``."""
    said = []
    for command in commands:
        said.append(heard(await ask(device, command)))
        await trio.sleep(command.pause_s)
    return "\n".join(said).strip()


def heard(done: Done) -> str:
    """All that a command said."""
    return f"{done.out.decode(errors='replace')}\n{done.complaints}".strip()


async def put_back(device: Device, undos: Sequence[Undo], patience_s: float) -> list[str]:
    """Undo in this order; what fails is tried again, after the others, for so long.

    Returns for each thing that could not be put back a line that says why, and what to run by hand.
    """
    left, why = list(undos), dict[str, str]()
    with trio.move_on_after(patience_s):
        while left:
            for undo in list(left):
                try:
                    await carry_out(device, undo.commands)
                    left.remove(undo)
                except Gone as exc:  # the others could not be reached either
                    why[undo.name] = str(exc)
                    break
                except DeviceError as exc:
                    why[undo.name] = str(exc)
            if left:
                await trio.sleep(PAUSE_S)
    return [complaint(device, undo, why.get(undo.name, "no time was left")) for undo in left]


def complaint(device: Device, undo: Undo, why: str) -> str:
    """Say that something could not be put back, and how a user does it."""
    commands = " && ".join(quoted(command.words) for command in undo.commands)
    return (
        f"{device.name}: expected to put back {undo.name} as it was ({undo.before}), got: {why}; "
        f"run by hand: {device.by_hand(commands)}"
    )


def packed(device: Device, undos: Sequence[Undo], patience_s: float) -> bytes:
    """Return it all as a line of JSON. A device is a dataclass of plain fields."""
    cls: Any = type(device)
    known = {field.name: getattr(device, field.name) for field in fields(cls) if field.init}
    plan = {
        "module": cls.__module__, "device": cls.__name__, "fields": known,
        "undos": [asdict(undo) for undo in undos], "patience_s": patience_s,
    }  # fmt: skip
    return json.dumps(plan).encode() + b"\n"


def unpacked(line: bytes) -> tuple[Device, list[Undo], float]:
    """Return what ``packed`` made a line of, which comes from our own process."""
    plan = json.loads(line)
    device: Device = getattr(import_module(plan["module"]), plan["device"])(**plan["fields"])
    return device, [_undo(undo) for undo in plan["undos"]], plan["patience_s"]


def _undo(plain: Mapping[str, Any]) -> Undo:
    return Undo(plain["name"], plain["before"], [Command(**command) for command in plain["commands"]])
