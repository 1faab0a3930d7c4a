"""``-c NAME[:key=value,...]``: ports and paths need no quoting."""

import pytest

from melt_stream.cli._specs import entries, parse
from melt_stream.errors import ConfigError


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("battery", ("battery", {})),
        ("battery:hz=5", ("battery", {"hz": 5})),
        ("battery:hz=2.5,optional=true", ("battery", {"hz": 2.5, "optional": True})),
        ("ppk2:port=/dev/ttyACM0", ("ppk2", {"port": "/dev/ttyACM0"})),
        ("scpi:address=tcp://127.0.0.1:5025,hz=10", ("scpi", {"address": "tcp://127.0.0.1:5025", "hz": 10})),
        ("scpi:query=MEAS:CURR?,MEAS:VOLT?,hz=1", ("scpi", {"query": "MEAS:CURR?,MEAS:VOLT?", "hz": 1})),
        ("lines:path=a=b,c", ("lines", {"path": "a=b,c"})),
        ("lines:names=[1, 2]", ("lines", {"names": [1, 2]})),
    ],
)
def test_a_spec_is_split_at_the_first_colon_then_at_commas_that_a_key_follows(spec, expected):
    assert parse(spec) == expected


def test_a_value_is_needed():
    with pytest.raises(
        ConfigError, match=r"-c battery:hz: expected NAME\[:key=value,...\], got 'hz' without a value"
    ):
        parse("battery:hz")


def test_two_of_a_kind_get_names_of_their_own():
    assert list(entries(["cpu", "lines:path=a", "lines:path=b", "lines:path=c"])) == [
        "cpu",
        "lines",
        "lines_2",
        "lines_3",
    ]
