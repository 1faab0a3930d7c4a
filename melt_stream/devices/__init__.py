"""Where inference runs and sensors are read: this machine, a phone over adb, a board over ssh. One interface, three links.

A ``Device`` runs commands (a ``Channel`` each: stdin, stdout, exit status), takes and gives files, and forwards ports. All else is made
of that: ``run``, the loop that samples files there (``loop``), ``Sampled``, a sensor of files that is read by it, and ``Place``, for all
else that runs there: the device's clock, and the lines of a command, or of a file that is followed, stamped by it.
"""

from __future__ import annotations

from melt_stream.devices.channel import Channel, Device, Done, Gone, Rebooted, run
from melt_stream.devices.follow import Happened, Logged, followed, logcat, logged
from melt_stream.devices.local import Local
from melt_stream.devices.place import Boots, Failed, Line, Place, Placeable
from melt_stream.devices.sampled import Sampled

__all__ = [
    "Boots",
    "Channel",
    "Device",
    "Done",
    "Failed",
    "Gone",
    "Happened",
    "Line",
    "Local",
    "Logged",
    "Place",
    "Placeable",
    "Rebooted",
    "Sampled",
    "followed",
    "logcat",
    "logged",
    "run",
]
