"""Where inference runs and sensors are read: this machine, a phone over adb, a board over ssh. One interface, three links.

A ``Device`` runs commands (a ``Channel`` each: stdin, stdout, exit status), takes and gives files, and forwards ports. All else is made
of that: ``run``, the loop that samples files there (``loop``), and ``Sampled``, a sensor of files that is read by it.
"""

from __future__ import annotations

from melt_stream.devices.channel import Channel, Device, Done, Gone, run
from melt_stream.devices.local import Local
from melt_stream.devices.sampled import Boots, Sampled

__all__ = ["Boots", "Channel", "Device", "Done", "Gone", "Local", "Sampled", "run"]
