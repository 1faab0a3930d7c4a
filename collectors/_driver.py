"""Drivers of others, which are extras: imported when they are needed."""

from __future__ import annotations

import importlib
from typing import Any

from melt_stream.errors import DeviceError


def driver(library: Any, what: str, extra: str) -> Any:
    """Return a module by its name; what is no name is the driver itself. Raises ``DeviceError``, which says what to install."""
    if not isinstance(library, str):
        return library
    try:
        return importlib.import_module(library)
    except ImportError as exc:
        raise DeviceError(
            f"{what}: expected the module {library!r}, got {exc}; try: pip install 'melt-stream[{extra}]'"
        ) from exc
