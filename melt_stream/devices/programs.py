"""What runs on a device: the loop that samples files, and the one that stamps a command's lines, in the three languages that boards have.

All say the same (``loop`` tells what): a shell that knows the time and waits by itself (mksh, bash 5) starts no process for a sample,
nor does ``python3``; any other shell (dash, busybox) starts some for each, which bounds its rate.
"""

from __future__ import annotations

SHELL_LOOP = r"""
p=$1 j=$2; shift 2
if [ -n "$KSH_VERSION" ]; then set +U; put() { print -rn -- "$1"; }; else put() { printf %s "$1"; }; fi
k=0 o=0 r= d=${EPOCHREALTIME/./}
n='
'
while :; do
    a=$EPOCHREALTIME l= b=
    for f; do
        v=
        if { IFS= read -rd '' v; :; } 2>/dev/null <"$f"; then l="$l ${#v}" b="$b$v"; else l="$l -1"; fi
    done
    z=$EPOCHREALTIME
    put "S $k $a $z$l$n$b"
    k=$((k + 1)) d=$((d + p)) t=${EPOCHREALTIME/./}
    w=$((d - t))
    if [ $w -lt 0 ]; then m=$((-w / p + 1)) && k=$((k + m)) && d=$((d + m * p)); fi
    [ "$j" = 1 ] && o=$((RANDOM * (p / 64) / 512))
    w=$((d + o - t))
    while :; do
        q=$w
        if [ $q -gt 900000 ]; then q=900000; fi
        if [ $q -lt 1 ]; then q=1; fi
        q=$((1000000 + q)) c=
        IFS= read -rt "0.${q#1}" c
        s=$? c=$r$c r=
        case $s,$c in
        0,clock\ *[!0-9]*) ;;
        0,clock\ *) put "C ${c#clock } $EPOCHREALTIME$n" ;;
        0,stop | 1,*) break 2 ;;
        0,*) ;;
        *) r=$c ;;
        esac
        t=${EPOCHREALTIME/./}
        w=$((d + o - t))
        [ $w -gt 0 ] || break
    done
done
put "E$n"
times
"""
"""Arguments: the period in us, 1 to read at a random moment of each slot, and the files. Where its time is up, ``read`` must say so by a status
above 128: busybox's says 1, as at the end of input. Now and then mksh (1 to 7 % of requests at 100 Hz) loses bytes that come while its time
runs out: what is left may be the end of one request, or two in one."""

PYTHON_LOOP = r"""
import os, random, select, sys, time
period, jitter, paths = int(sys.argv[1]) / 1e6, sys.argv[2] == "1", sys.argv[3:]
def now():
    return b"%d.%06d" % divmod(int(time.time() * 1e6), 1000000)
def put(text):
    while text:
        text = text[os.write(1, text):]
def sample(slot):
    head, body = b"S %d %s" % (slot, now()), b""
    lengths = b""
    for path in paths:
        try:
            with open(path, "rb", 0) as file:
                text = file.read().split(b"\0")[0]
        except OSError:
            lengths += b" -1"
            continue
        lengths += b" %d" % len(text)
        body += text
    put(head + b" " + now() + lengths + b"\n" + body)
def obey(until, rest):
    while True:
        left = until - time.time()
        if select.select([0], [], [], max(left, 0))[0]:
            data = os.read(0, 4096)
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                if line.startswith(b"clock "):
                    put(b"C " + line[6:] + b" " + now() + b"\n")
            if not data or b"stop" in lines:
                return None
        elif left <= 0:
            return rest
slot, due, rest = 0, time.time(), b""
while rest is not None:
    sample(slot)
    slot, due = slot + 1, due + period
    late = time.time() - due
    if late > 0:
        missed = int(late / period) + 1
        slot, due = slot + missed, due + missed * period
    rest = obey(due + (random.random() * period if jitter else 0), rest)
put(b"E\n%s\n" % " ".join("0m%.3fs" % spent for spent in os.times()[:2]).encode())
"""
"""Arguments as the shell's. For any Python 3.5 or newer."""

SLOW_LOOP = r"""
@NOW@
p=$1 n='
'; shift 2
exec 3<&0
us() { us=$((${now%.*} * 1000000 + 1${now#*.} - 1000000)); }
tick() {
    now; us
    k=0 d=$us
    while :; do
        echo "tick $k $d"
        k=$((k + 1)) d=$((d + p))
        while now; us; w=$((d - us)); [ $w -gt 0 ]; do
            [ $w -lt 1000000 ] || w=999999
            w=$((1000000 + w))
            sleep "0.${w#1}" 2>/dev/null
        done
        m=$((-w / p)); k=$((k + m)) d=$((d + m * p))
    done
}
{
    tick &
    t=$!
    while IFS= read -r c <&3 && [ "$c" != stop ]; do echo "$c"; done
    echo stop
    kill $t
    wait $t
} 2>/dev/null | while read -r c x y; do
    case $c in
    tick)
        now; a=$now l= b=; us
        [ $us -lt $((y + p)) ] || continue
        for f; do
            v= i=
            if { while IFS= read -r i; do v=$v$i$n; done; v=$v$i; } 2>/dev/null <"$f"; then
                l="$l ${#v}" b=$b$v
            else
                l="$l -1"
            fi
        done
        now
        printf %s "S $x $a $now$l$n$b"
        ;;
    clock) now; echo "C $x $now" ;;
    stop) break ;;
    esac
done
echo E
times
"""
"""Arguments as the shell's, but never at random moments. One process tells when a slot is due, a second hands the commands on in whole
lines, and this one reads both from one pipe, so that one alone writes. A slot that is due for more than a period is left out."""

BY_DATE = "now() { now=$(date +%s.%N); now=${now%???}; }"
"""The time of the wall, at one process a look."""
BY_UPTIME = "now() { read -r now _ </proc/uptime; now=${now}0000; }"
"""Since the boot, in hundredths of a second, without a process."""
BY_SHELL = "now() { now=$EPOCHREALTIME; }"
"""The time of the wall, without a process."""

_HELD = r"""
if [ -n "$KSH_VERSION" ]; then put() { print -r -- "$1"; }; else put() { printf '%s\n' "$1"; }; fi
exec 3<&0 5>&1
held() {
    (exec "$@") 3<&- 4>&- 5>&- <&6 6<&- &
    p=$!
    { while read -r x; do :; done; kill $p; } <&3 >/dev/null 2>&1 4>&- 5>&- 6<&- &
    w=$!
    wait $p
    echo $? >&4
    kill -9 $w 2>/dev/null  # at once: a mksh that is about to read notices no other signal
}
"""
"""For any shell: ``held`` runs a command whose stdin is our descriptor 6, kills it when our end of stdin closes, and tells its status at 4."""

SHELL_LINES = (
    "@NOW@"
    + _HELD
    + r"""
s=$({ held "$@" 6</dev/null | while IFS= read -r l || [ -n "$l" ]; do now; put "$now $l"; done >&5; } 4>&1)
exit $s
"""
)
"""Runs a command and stamps its lines. Its exit status is the command's."""

OUTPUT = (
    _HELD
    + r"""
g=$1; shift
s=$({ (trap '' PIPE; put "$g" 2>/dev/null; :) | held "$@" 6<&0 | cat >&5; } 4>&1)
exit $s
"""
)
"""Runs a command with a text as its stdin; ``cat`` makes its stdout a pipe, which a daemon that it is handed to may write to."""

PYTHON_LINES = r"""
import os, subprocess, sys, threading, time
def watch():
    while os.read(0, 4096):
        pass
    child.terminate()
try:
    child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
except OSError as exc:
    sys.exit(str(exc))
threading.Thread(target=watch, daemon=True).start()
for line in child.stdout:
    now = b"%d.%06d " % divmod(int(time.time() * 1e6), 1000000)
    sys.stdout.buffer.write(now + line.rstrip(b"\n") + b"\n")
    sys.stdout.buffer.flush()
status = child.wait()
sys.stdout.flush()
os._exit(status if status >= 0 else 128 - status)
"""
