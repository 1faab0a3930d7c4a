"""``melt-stream doctor``: what works on this machine, and what would help where something does not."""

from __future__ import annotations

from typing import Any

from melt_stream import plugins
from melt_stream.cli._common import NO_OPTIONS, Options, print_json, print_table
from melt_stream.collector import Health
from melt_stream.errors import MeltError

GROUPS = ("melt_stream.collectors", "melt_stream.workloads")


def doctor(*, options: Options = NO_OPTIONS) -> None:
    """Check every collector and workload on this machine, as it is with its default settings."""
    checks = [_check(group, name) for group in GROUPS for name in plugins.names(group)]
    if options.json:
        print_json({"checks": checks})
        return
    rows = [("yes" if c["ok"] else "no", c["name"], c["kind"], c["what"], c["cure"]) for c in checks]
    print_table("", ["works", "name", "kind", "what is there", "what would help"], rows)


def _check(group: str, name: str) -> dict[str, Any]:
    health = _health(group, name)
    kind = group.partition(".")[2].rstrip("s")
    return {"name": name, "kind": kind, "ok": health.ok, "what": health.what, "cure": health.cure}


def _health(group: str, name: str) -> Health:
    plug_in: Any = None
    try:
        plug_in = plugins.load(group, name)
        made = plug_in()
    except MeltError as exc:
        return Health(False, str(exc), f"melt-stream collectors {name} tells what it takes")
    except ImportError as exc:
        return Health(False, f"its driver is not installed: {exc}", f"pip install 'melt-stream[{name}]'")
    except TypeError:
        here = getattr(plug_in, "here", None)  # what can be said without settings: is it plugged in?
        return (
            here() if here else Health(True, "needs settings", f"melt-stream collectors {name} tells which")
        )
    check = getattr(made, "check", None)
    return check() if check else Health(True, "no check of its own")
