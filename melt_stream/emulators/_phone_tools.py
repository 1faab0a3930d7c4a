"""Look-alikes of Android's tools, as scripts for any shell: they keep what is set, in files that outlive a reboot, and tell what is inside.

What they print is what AOSP's do: SettingsService, ConnectivityService, NotificationShellCmd, PowerManagerService, BatteryService.
"""

from __future__ import annotations

import platform
import shlex
import sys

STATE = "data/system/state"
"""Where it is kept: a file a setting, and ``wakefulness``, ``unplugged``."""
INSIDE = "data/.inside"
"""What hardware and services hold, whether or not the phone's /sys shows it: the texts of ``_phone_dumps``, ``gauge``, ``odpm``."""
FIRST = {
    "system/screen_brightness": "102", "system/screen_brightness_mode": "1", "system/screen_off_timeout": "60000",
    "secure/location_mode": "3", "global/airplane_mode_on": "0", "global/wifi_on": "1", "global/bluetooth_on": "1",
    "global/zen_mode": "0", "global/stay_on_while_plugged_in": "0", "wakefulness": "Asleep",
}  # fmt: skip
"""What is set when it is first switched on."""
ABIS = {"x86_64": "x86_64", "aarch64": "arm64-v8a"}
"""By machine, as ``uname -m`` has it."""
PROPERTIES = {
    "ro.build.display.id": "emulated", "ro.build.version.release": "14", "ro.product.manufacturer": "melt_stream",
    "ro.product.model": "Emulated", "ro.product.cpu.abi": ABIS.get(platform.machine(), platform.machine()),
}  # fmt: skip
"""What ``getprop`` knows."""
_HEAD = f"""#!/bin/sh
root=${{0%/system/bin/*}}
state=$root/{STATE} inside=$root/{INSIDE}
"""
_SETTINGS = r"""
case $2 in system|secure|global) ;; *) echo "Invalid namespace: $2" >&2; exit 255 ;; esac
file=$state/$2/$3
case $1 in
get) if [ -e "$file" ]; then cat "$file"; else echo null; fi ;;
put) echo "$4" >"$file" ;;
delete) if [ -e "$file" ]; then rm "$file"; echo "Deleted 1 rows"; else echo "Deleted 0 rows"; fi ;;
*) echo "Invalid command: $1" >&2; exit 255 ;;
esac
"""
_CMD = r"""
case $1/$2/$3 in
connectivity/airplane-mode/) read -r on <"$state/global/airplane_mode_on"; [ "$on" = 1 ] && echo enabled || echo disabled ;;
connectivity/airplane-mode/enable) echo 1 >"$state/global/airplane_mode_on" ;;
connectivity/airplane-mode/disable) echo 0 >"$state/global/airplane_mode_on" ;;
notification/set_dnd/on|notification/set_dnd/none) echo 2 >"$state/global/zen_mode" ;;
notification/set_dnd/priority) echo 1 >"$state/global/zen_mode" ;;
notification/set_dnd/alarms) echo 3 >"$state/global/zen_mode" ;;
notification/set_dnd/off|notification/set_dnd/all) echo 0 >"$state/global/zen_mode" ;;
*) echo "cmd: Can't find service: $1" >&2; exit 20 ;;
esac
"""
_SVC = r"""
case $1/$2 in
wifi/enable|bluetooth/enable) echo 1 >"$state/global/$1_on" ;;
wifi/disable|bluetooth/disable) echo 0 >"$state/global/$1_on" ;;
*) echo "Available commands: help, wifi, bluetooth" >&2; exit 255 ;;
esac
"""
_INPUT = r"""
case $1/$2 in
keyevent/KEYCODE_WAKEUP|keyevent/224) echo Awake >"$state/wakefulness" ;;
keyevent/KEYCODE_SLEEP|keyevent/223) echo Asleep >"$state/wakefulness" ;;
*) echo "Error: Unknown command: $1" >&2; exit 255 ;;
esac
"""
_DUMPSYS = r"""
case $1/$2 in
power/) read -r now <"$state/wakefulness"; printf 'POWER MANAGER (dumpsys power)\n\nPower Manager State:\n  mWakefulness=%s\n  mIsPowered=true\n' "$now" ;;
battery/)
    {
        IFS= read -r title
        echo "$title"
        if [ -e "$state/unplugged" ]; then
            echo "  (UPDATES STOPPED -- use 'reset' to restart)"
            sed 's/powered: true/powered: false/'
        else cat; fi
    } <"$inside/battery"
    ;;
thermalservice/) cat "$inside/thermalservice" ;;
battery/unplug) : >"$state/unplugged" ;;
battery/reset) rm -f "$state/unplugged" ;;
*) echo "Can't find service: $1" >&2; exit 0 ;;
esac
"""
_GETPROP = f"""
list() {{ printf '%s\n' {shlex.join(f"[{name}]: [{value}]" for name, value in PROPERTIES.items())}; }}
[ $# -gt 0 ] || {{ list; exit; }}
list | sed -n "s/^\\[$1\\]: \\[\\(.*\\)\\]$/\\1/p" | grep . || echo
"""
_PERFETTO = f"""
# perfetto --txt -c - -o -; its CLOCK_BOOTTIME is the kernel's, whatever sets its wall clock off
export FAKETIME_DONT_FAKE_MONOTONIC=1 PYTHONPATH='{":".join(path for path in sys.path if path)}'
exec '{sys.executable}' -m melt_stream.emulators._perfetto_tool "$inside" "$@"
"""
TOOLS = {
    name: _HEAD + body.lstrip("\n")
    for name, body in {
        "settings": _SETTINGS, "cmd": _CMD, "svc": _SVC, "input": _INPUT, "dumpsys": _DUMPSYS, "getprop": _GETPROP, "perfetto": _PERFETTO,
    }.items()
}  # fmt: skip
"""By name."""
