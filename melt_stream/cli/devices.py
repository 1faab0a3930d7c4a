"""``melt-stream devices``: the phones that adb servers know and the devices of a recipe, what each is, and who comes and goes."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from melt_stream.cli._common import NO_OPTIONS, Options, print_json, print_table, say

if TYPE_CHECKING:
    from melt_stream.harness.known_devices import Everyone, Known
    from melt_stream.harness.looked_at import Look

COLUMNS = ("device", "link", "state", "what it is", "loop", "clock ahead / ms", "sensors", "what to try")


def devices(
    recipe: Annotated[Path | None, Parameter(help="A recipe, whose [device.NAME] are reached too.")] = None,
    /,
    *,
    watch: Annotated[bool, Parameter(negative="", help="Go on, and tell who comes and goes.")] = False,
    options: Options = NO_OPTIONS,
) -> int:
    """List phones and a recipe's devices; exit status 1 where one of the recipe cannot be reached."""
    import trio

    from melt_stream.harness.known_devices import Everyone
    from melt_stream.recipe import Recipe, read

    everyone = Everyone(Recipe() if recipe is None else read(recipe))
    return int(trio.run(_watch if watch else _list, everyone, options))


async def _list(everyone: Everyone, options: Options) -> bool:
    """Print all of them; return whether one of the recipe is not there."""
    from melt_stream.errors import MeltError
    from melt_stream.harness.looked_at import THERE

    await everyone.ask_servers()
    looks = await _looks(everyone.known())
    silent = [str(why) for why in everyone.servers.values() if isinstance(why, MeltError)]
    if options.json:
        print_json({"devices": [asdict(one) for one in looks], "servers": silent})
    else:
        print_table("", COLUMNS, [_cells(one) for one in looks])
        for why in silent:
            say(f"melt-stream: no phones: {why}")
    return any(one.state != THERE for one in looks if one.device in everyone.recipe.device)


async def _looks(known: dict[str, Known]) -> list[Look]:
    """Look at all of them at once; in order."""
    import trio

    from melt_stream.harness.looked_at import Look, look, sensors

    asked, found = sensors(), dict[str, Look]()

    async def one(name: str, it: Known) -> None:
        found[name] = await look(it.device, it.link, it.address, asked)

    async with trio.open_nursery() as nursery:
        for name, it in known.items():
            nursery.start_soon(one, name, it)
    return [found[name] for name in known]


async def _watch(everyone: Everyone, options: Options) -> bool:
    """Print who comes and goes until a signal."""
    import trio

    from melt_stream.signals import on_signals

    def told(name: str, one: Known, state: str) -> None:
        if options.json:
            print_json({"device": name, "link": one.link, "address": one.address, "state": state})
        else:
            print(f"{name} ({one.link} {one.address}): {state}")
        sys.stdout.flush()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(on_signals, lambda _: nursery.cancel_scope.cancel(), nursery.cancel_scope.cancel)
        await everyone.follow(told)
    return False


def _cells(one: Look) -> list[str | None]:
    clock = (
        None if one.ahead_s is None else f"{one.ahead_s * 1e3:+.1f} ± {(one.ahead_bound_s or 0) * 1e3:.1f}"
    )
    link = one.link if one.address in ("", one.device) else f"{one.link} {one.address}"
    sensors = "\n".join(f"{name}: {said}" for name, said in one.sensors.items())
    return [
        one.device,
        link,
        one.state,
        _identity(one) or one.error,
        one.loop,
        clock,
        sensors or None,
        one.cure,
    ]


def _identity(one: Look) -> str:
    told = dict(one.identity)
    memory, cores, root = (told.pop(name, None) for name in ("memory_bytes", "cores", "root"))
    facts = [
        *(str(fact) for fact in told.values() if fact),
        *([f"{cores} cores"] if cores else []),
        *([f"{memory / 2**30:.1f} GiB"] if memory else []),
        *([{True: "root", False: "no root"}[root]] if root is not None else []),
        *([one.error] if one.error else []),
    ]
    return ", ".join(facts) if told else ""
