"""What a recipe's devices are, asked of each once before a run begins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import trio

from melt_stream.devices import Place
from melt_stream.devices.identity import ask
from melt_stream.errors import MeltError
from melt_stream.harness.placed import link
from melt_stream.recipe import Entry

PATIENCE_S = 10.0
"""How long a device has to say what it is; a run does not wait longer, and does without."""


async def introduced(
    entries: Mapping[str, Entry], places: Mapping[str, Place], patience_s: float = PATIENCE_S
) -> dict[str, dict[str, Any]]:
    """Ask all at once; return by name how each is reached by its entry of the recipe (``link``, ``address``), and what it said:
    the fields of ``Identity``, ``loop`` (what runs it there), or ``error``.
    """
    said: dict[str, dict[str, Any]] = {name: link(entries[name]) for name in places}
    async with trio.open_nursery() as nursery:
        for name, place in places.items():
            nursery.start_soon(_ask, place, said[name], patience_s)
    return said


async def _ask(place: Place, said: dict[str, Any], patience_s: float) -> None:
    try:
        with trio.move_on_after(patience_s) as waiting:
            said |= asdict(await ask(place.device))
            said["loop"] = (await place.runner()).kind
        if waiting.cancelled_caught:
            said["error"] = f"expected an answer within {patience_s:g} s, got none"
    except MeltError as exc:
        said["error"] = f"{type(exc).__name__}: {exc}"
