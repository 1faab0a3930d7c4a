"""What an instrumented app says to ``inference_socket``: lines of JSON, each of one of four kinds. Pure."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr, ValidationError

from melt_stream.errors import DeviceError
from melt_stream.events import Kind

Tick = Annotated[StrictInt, Field(ge=0, lt=1 << 62)]
Count = Annotated[StrictInt, Field(ge=0, lt=1 << 40)]


class Unfit(DeviceError):
    """A line is none of the protocol's."""


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Hello(_Line):
    """The first line: who it is, and what its clock counts."""

    hello: StrictStr
    tick_ns: Annotated[float, Field(gt=0, le=1e9)] = 1.0
    resolution: Annotated[StrictInt, Field(gt=0, le=1 << 40)] = 1
    rho_ppm: Annotated[float, Field(ge=0, le=1000)] = 15.0
    facts: dict[str, Any] = {}


class Event(_Line):
    """Something happened at ``t`` of the app's clock; the other fields are columns of ``events``."""

    event: Kind
    t: Tick
    request: StrictInt | StrictStr | None = None
    name: StrictStr | None = None
    index: Count | None = None
    count: Count | None = None
    visible: StrictBool | None = None
    drafted: Count | None = None
    accepted: Count | None = None
    prompt_total: Count | None = None
    prompt_cached: Count | None = None
    prompt_processed: Count | None = None
    text: StrictStr | None = None
    detail: dict[str, Any] | None = None


class Answer(_Line):
    """The app's time, read after it had our request of this number."""

    clock: StrictInt
    t: Tick


class Done(_Line):
    """Nothing more comes."""

    done: StrictBool


Said = Hello | Event | Answer | Done
KINDS: dict[str, type[Hello] | type[Event] | type[Answer] | type[Done]] = {
    "hello": Hello,
    "event": Event,
    "clock": Answer,
    "done": Done,
}
ABOUT = 160
"""Characters of a line that a message shows."""


def parse(line: bytes | None) -> Said:
    """Return what a line says; None stands for one that is too long. Raises ``Unfit``."""
    if line is None:
        raise Unfit("expected a line of JSON, got one that is too long")
    try:
        told = json.loads(line)
    except (ValueError, RecursionError) as exc:
        raise Unfit(f"expected a line of JSON, got {_shown(line)}: {exc}") from exc
    kinds = [kind for kind in KINDS if isinstance(told, dict) and kind in told]
    if len(kinds) != 1:
        raise Unfit(f"expected an object with one of {', '.join(KINDS)}, got {_shown(line)}")
    try:
        return KINDS[kinds[0]].model_validate(told)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise Unfit(f"expected {kinds[0]}, got {_shown(line)}: {where}: {first['msg']}") from exc


def _shown(line: bytes) -> str:
    return repr(line[:ABOUT].decode(errors="replace"))
