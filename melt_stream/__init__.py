"""Joules per token: record what devices draw and do, and say where the energy went.

The map, in the order of the data:

* ``Unit``, ``Stream``, ``Rail``, ``Clock`` say what is measured; ``collectors`` measure it into an ``Outlet``.
* ``record`` runs collectors, workloads and sinks; the ``sinks.journal`` writes a run that survives ``kill -9``.
* ``analysis.pack`` turns it into Parquet with requests, phases and tokens; ``analysis.archive`` serves it to SQL.
* ``recording`` does all of that for a script; ``melt-stream`` (``cli``) for a shell; ``testing`` for your plug-in.

Names are loaded when they are used: importing this loads neither Trio nor Arrow nor numba.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from melt_stream.clock import HOST as HOST
    from melt_stream.clock import Clock as Clock
    from melt_stream.clock import Reading as Reading
    from melt_stream.collector import Collector as Collector
    from melt_stream.collector import Health as Health
    from melt_stream.collector import Workload as Workload
    from melt_stream.engine import Ending as Ending
    from melt_stream.engine import record as record
    from melt_stream.errors import ConfigError as ConfigError
    from melt_stream.errors import DataError as DataError
    from melt_stream.errors import DeviceError as DeviceError
    from melt_stream.errors import Inconclusive as Inconclusive
    from melt_stream.errors import MeltError as MeltError
    from melt_stream.errors import Transient as Transient
    from melt_stream.events import EVENTS as EVENTS
    from melt_stream.harness.recording import recording as recording
    from melt_stream.outlet import Outlet as Outlet
    from melt_stream.outlet import Row as Row
    from melt_stream.poller import Poller as Poller
    from melt_stream.rail import Rail as Rail
    from melt_stream.sensor import Files as Files
    from melt_stream.sensor import FileSensor as FileSensor
    from melt_stream.sensor import Find as Find
    from melt_stream.sensor import Rows as Rows
    from melt_stream.sink import Batch as Batch
    from melt_stream.sink import Sink as Sink
    from melt_stream.sink import Source as Source
    from melt_stream.stream import Column as Column
    from melt_stream.stream import Stream as Stream
    from melt_stream.units import BYTE as BYTE
    from melt_stream.units import CELSIUS as CELSIUS
    from melt_stream.units import HZ as HZ
    from melt_stream.units import NS as NS
    from melt_stream.units import ONE as ONE
    from melt_stream.units import PERCENT as PERCENT
    from melt_stream.units import A as A
    from melt_stream.units import C as C
    from melt_stream.units import J as J
    from melt_stream.units import S as S
    from melt_stream.units import Unit as Unit
    from melt_stream.units import V as V
    from melt_stream.units import W as W

_HOMES = {
    "clock": "HOST Clock Reading",
    "collector": "Collector Health Workload",
    "engine": "Ending record",
    "errors": "ConfigError DataError DeviceError Inconclusive MeltError Transient",
    "events": "EVENTS",
    "harness.recording": "recording",
    "outlet": "Outlet Row",
    "poller": "Poller",
    "rail": "Rail",
    "sensor": "FileSensor Files Find Rows",
    "sink": "Batch Sink Source",
    "stream": "Column Stream",
    "units": "A BYTE C CELSIUS HZ J NS ONE PERCENT S Unit V W",
}
_HOME = {name: module for module, names in _HOMES.items() for name in names.split()}

__all__ = sorted(_HOME)  # noqa: PLE0605 - made from the table above, so that the two cannot differ


def __getattr__(name: str) -> Any:
    if (home := _HOME.get(name)) is None:
        raise AttributeError(
            f"module 'melt_stream' has no attribute {name!r}; there are: {', '.join(__all__)}"
        )
    value = globals()[name] = getattr(import_module(f"melt_stream.{home}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
