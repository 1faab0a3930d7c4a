"""The line of figures while a run records."""

from melt_stream.cli._progress import Tally, line
from melt_stream.events import EVENTS
from melt_stream.outlet import Hub
from melt_stream.rail import Rail
from melt_stream.stream import Stream
from melt_stream.units import CELSIUS, W

POWER = Stream("power", watts=W)


def tally_of(hub: Hub, *, flushes) -> Tally:
    tally, outlet = Tally(), hub.outlet("meter")
    for fill in flushes:
        fill(outlet)
        for batch in hub.take():
            tally.add(batch)
    return tally


def test_power_is_followed_and_tokens_are_counted():
    tally = tally_of(
        Hub(),
        flushes=[
            lambda out: out.row(POWER, tick=0, watts=4.0),
            lambda out: out.row(POWER, tick=2_000_000_000, watts=5.0),
            lambda out: out.row(EVENTS, kind="token", request=1, index=3, count=4),
        ],
    )
    assert (tally.rows, tally.tokens, tally.watts) == (3, 4, {"meter.power": 5.0})
    assert tally.joules_per_token == 2.5
    assert "5.00 W" in line(tally, 2.0).plain
    assert "4 tokens" in line(tally, 2.0).plain


def test_tokens_a_second_are_counted_lately_and_the_hottest_is_shown():
    zones = Stream("thermal", zone=str, celsius=CELSIUS)
    hub = Hub()
    tally = tally_of(hub, flushes=[])
    app = hub.outlet("app")
    for second, tokens in enumerate((0, 10, 10)):
        if tokens:
            app.row(EVENTS, kind="token", request=1, index=0, count=tokens)
        app.row(zones, zone="cpu", celsius=50.0 + second)
        app.row(zones, zone="skin", celsius=30.0)
        for batch in hub.take():
            tally.add(batch)
        tally.passed(float(second))
    shown = line(tally, 2.0, "[1/4] threads=2").plain
    assert tally.tokens_per_s == 10.0
    assert shown.startswith("[1/4] threads=2  ")
    assert "10 tokens/s" in shown
    assert "52 °C" in shown


def test_an_estimate_is_called_one_and_a_gap_is_counted():
    def fill(out):
        out.rail(POWER, Rail("cpu", boundary="package", kind="gauge", estimated=True))
        out.row(POWER, watts=3.0)
        out.gap(POWER, 0, 1, "unplugged")

    shown = line(tally_of(Hub(), flushes=[fill]), 1.0).plain
    assert "meter.power 3.00 W est." in shown
    assert "1 gaps" in shown


def test_unknown_power_is_not_shown_as_zero():
    assert tally_of(Hub(), flushes=[lambda out: out.row(POWER, watts=None)]).watts == {}
