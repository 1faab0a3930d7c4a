"""Look-alikes of NVIDIA's tools, as scripts for any shell, and of jetson-stats' client: what they print is of the tree or of their state, or constant."""

from __future__ import annotations

from melt_stream.collectors._jtop_example import MODULE

GENERATIONS = (4, 6, 7)
"""JetPack 4 and before (L4T 32), 5 and 6 (L4T 34 to 36), 7: each has its grammar of tegrastats' lines."""
_TEGRASTATS = r"""#!/bin/sh
# tegrastats [--interval MS]
ms=1000
while [ $# -gt 0 ]; do
    case $1 in --interval) ms=$2; shift ;; esac
    shift
done
chips=@ROOT@/sys/bus/i2c/drivers/ina3221
s1=0 s2=0 s3=0 n=0
now() { IFS= read -r v <"$chips/1-0040/hwmon/hwmon3/in$1_input" && IFS= read -r i <"$chips/1-0040/hwmon/hwmon3/curr$1_input" && p=$((v * i / 1000)); }
while :; do
    n=$((n + 1))
    now 1; p1=$p s1=$((s1 + p))
    now 2; p2=$p s2=$((s2 + p))
    now 3; p3=$p s3=$((s3 + p))
    a1=$((s1 / n)) a2=$((s2 / n)) a3=$((s3 / n))
    echo "@LINE@" || exit
    sleep $((ms / 1000)).$(printf %03d $((ms % 1000)))
done
"""
_CPUS = "CPU [12%@1190,5%@1190,off,off]"
_LINES = {
    4: f"RAM 2448/7858MB (lfb 2x4MB) SWAP 0/3929MB (cached 0MB) {_CPUS} EMC_FREQ 3%@1600 GR3D_FREQ 39%@305 APE 150 "
    "MTS fg 0% bg 2% PLL@36C CPU@43.5C PMIC@100C GPU@35C Tboard@29C "
    "VDD_GPU_SOC $p1/$a1 VDD_CPU_CV $p2/$a2 VIN_SYS_5V0 $p3/$a3",
    6: f"$(date '+%m-%d-%Y %H:%M:%S') RAM 2448/30697MB (lfb 2x4MB) SWAP 0/15348MB (cached 0MB) {_CPUS} GR3D_FREQ 39%@[305,0] "
    "NVENC off NVDLA0 off VIC_FREQ 115 cpu@43.906C gpu@35.125C cv0@-256C tj@43.906C "
    "VDD_GPU_SOC ${p1}mW/${a1}mW VDD_CPU_CV ${p2}mW/${a2}mW VIN_SYS_5V0 ${p3}mW/${a3}mW",
    7: f"$(date '+%m-%d-%Y %H:%M:%S') RAM 2448/125771MB (lfb 2x4MB) SWAP 0/0MB (cached 0MB) {_CPUS} EMC_FREQ 3%@3199 "
    "GR3D_FREQ 12%@[1300,1300] cpu@52.968C/52.968C gpu@48.5C/48.5C "
    "VDD_GPU_SOC ${p1}mW/${a1}mW/${p1}mW VDD_CPU_CV ${p2}mW/${a2}mW/${p2}mW VIN_SYS_5V0 ${p3}mW/${a3}mW/${p3}mW",
}
_NVPMODEL = r"""#!/bin/sh
# nvpmodel -q | -m ID; a mode that needs a reboot asks for one
state=${0%/bin/*}/state/mode
read -r id <"$state"
name() { case $1 in 0) echo MAXN ;; 1) echo MODE_15W ;; 2) echo MODE_30W ;; 3) echo MODE_50W ;; *) return 1 ;; esac; }
case $1 in
-q) echo 'NVPM WARN: fan mode is not set!' >&2; printf 'NV Power Mode: %s\n%s\n' "$(name "$id")" "$id" ;;
-m)
    name "$2" >/dev/null || { echo "NVPM ERROR: Invalid power model ID: $2" >&2; exit 255; }
    if [ "$2" != "$id" ] && [ "$2" = 1 ]; then
        echo "NVPM WARN: Golden image context is already created"
        echo "NVPM WARN: Reboot required for changing to this power mode: $2"
        echo "NVPM WARN: DO YOU WANT TO REBOOT NOW? enter YES/yes to confirm: "
        read -r answer
        case $answer in YES|yes) ;; *) echo "NVPM ERROR: optMask is 1, no request for power mode"; exit 0 ;; esac
    fi
    [ "$2" = "$id" ] || rm -f "${0%/bin/*}/state/pinned"
    echo "$2" >"$state"
    ;;
*) echo "expected -q or -m ID, got '$1'" >&2; exit 255 ;;
esac
"""
_CLOCKS = r"""#!/bin/sh
# jetson_clocks | --show | --store [FILE] | --restore [FILE]
pinned=${0%/bin/*}/state/pinned
file=${2:-$HOME/l4t_dfs.conf}
if [ -e "$pinned" ]; then p=1 cpu=2201600 gpu=1300500000; else p=0 cpu=729600 gpu=306000000; fi
case $1 in
"") : >"$pinned" ;;
--store)
    if [ -e "$file" ]; then
        echo "File $file already exists. Can I overwrite it? Y/N:"
        read -r answer
        case $answer in y|Y) ;; *) echo "Error: cannot overwrite $file" >&2; exit 1 ;; esac
    fi
    echo "pinned:$p" >"$file"
    ;;
--restore)
    [ -e "$file" ] || { echo "Error: file $file not found" >&2; exit 1; }
    case $(cat "$file") in pinned:1) : >"$pinned" ;; *) rm -f "$pinned" ;; esac
    ;;
--show)
    for n in 0 1; do
        echo "cpu$n: Online=1 Governor=schedutil MinFreq=$cpu MaxFreq=2201600 CurrentFreq=2201600 IdleStates: WFI=$((1 - p)) c7=$((1 - p))"
    done
    echo "GPU MinFreq=$gpu MaxFreq=1300500000 CurrentFreq=$gpu"
    echo "EMC MinFreq=204000000 MaxFreq=3199000000 CurrentFreq=3199000000 FreqOverride=$p"
    echo 'FAN Dynamic Speed Control=nvfancontrol hwmon0_pwm1=0'
    "${0%/*}/nvpmodel" -q 2>/dev/null | grep '^NV Power Mode'
    ;;
*) echo "expected --show, --store or --restore, got '$1'" >&2; exit 1 ;;
esac
"""

_REBOOT = """#!/bin/sh
# reboot: says so in a place that the emulator watches
: >@ASKED@ || { echo 'Failed to reboot: access denied' >&2; exit 1; }
"""

_JTOP = """
CHIPS = "@ROOT@/sys/bus/i2c/drivers/ina3221/"
PLACES = {"VDD_GPU_SOC": "1-0040/hwmon/hwmon3/curr1_input", "VDD_CPU_CV": "1-0040/hwmon/hwmon3/curr2_input",
          "VIN_SYS_5V0": "1-0040/hwmon/hwmon3/curr3_input", "VDDQ_VDD2_1V8AO": "1-0041/hwmon/hwmon4/curr2_input"}
def look():
    found = {}
    for name, place in PLACES.items():
        with open(CHIPS + place) as file:
            found[name] = int(file.read())
    return found
"""


def jtop(root: str) -> str:
    """Return a Python module that stands in for jetson-stats' client, with the rails of the tree."""
    return MODULE + _JTOP.replace("@ROOT@", root)


def tools(generation: int, root: str, asked: str) -> dict[str, str]:
    """Return each tool's name and script; ``root`` is where it finds ``/sys``, empty where it is in its place.

    ``asked`` is the file that a reboot makes; where there is none, nobody may.
    """
    return {
        "reboot": _REBOOT.replace("@ASKED@", asked or "/sys/reboot"),
        "tegrastats": _TEGRASTATS.replace("@LINE@", _LINES[generation]).replace("@ROOT@", root),
        "nvpmodel": _NVPMODEL,
        "jetson_clocks": _CLOCKS,
    }
