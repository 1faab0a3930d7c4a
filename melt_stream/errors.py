"""
Everything melt_stream raises on purpose, told apart by what to do next::

    MeltError
     +- ConfigError         the recipe or the call is wrong: mend it, nothing was started
     +- DeviceError         the instrument is broken or does not speak its protocol
     |   +- Transient       ... but asking again may help
     +- DataError           the data on disk is damaged, and where
     +- Inconclusive        all went well, but the question cannot be answered

A message says what was expected, what came, where, and what to try.
"""

from __future__ import annotations


class MeltError(Exception):
    """Base class of everything below."""


class ConfigError(MeltError):
    """The recipe, or the arguments of a call, are wrong; nothing was started."""


class DeviceError(MeltError):
    """An instrument did not do what its protocol says."""


class Transient(DeviceError):
    """An instrument failed in a way that asking again may cure."""


class DataError(MeltError):
    """Recorded or imported data is damaged; the message says where."""


class Inconclusive(MeltError):
    """Nothing failed, but there is no answer: for instance, nothing measured power."""
