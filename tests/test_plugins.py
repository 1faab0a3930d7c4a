"""Plug-ins are listed without being imported, and made from values that are checked strictly."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import KW_ONLY, dataclass, field
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Annotated

import pytest
from annotated_types import Ge, Gt

import melt_stream
from melt_stream import plugins
from melt_stream.errors import ConfigError


@dataclass
class Meter:
    port: str
    _: KW_ONLY
    hz: Annotated[float, Gt(0)] = 10.0
    channels: list[Annotated[int, Ge(0)]] = field(default_factory=list)
    optional: bool = False
    found: str = field(default="", init=False)

    def __post_init__(self) -> None:
        if self.port == "none":
            raise ValueError("port: expected a port, got 'none'")


def test_values_become_fields():
    meter = plugins.configure(Meter, {"port": "/dev/x", "hz": 50, "optional": True, "channels": [1]}, "here")
    assert meter == Meter("/dev/x", hz=50.0, channels=[1], optional=True)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"port": "x", "hzz": 1}, "here.hzz: expected a key of Meter, got 'hzz'; did you mean 'hz'?"),
        (
            {"port": "x", "found": "y"},
            "here.found: expected a key of Meter, got 'found'; there are: channels, hz, ",
        ),
        ({}, "here: expected 'port', got none"),
        ({"port": "x", "hz": 0}, "here.hz: input should be greater than 0, got 0"),
        ({"port": "x", "hz": "fast"}, "here.hz: input should be a valid number"),
        ({"port": "x", "hz": "50"}, "here.hz: input should be a valid number, got '50'"),
        ({"port": "x", "optional": "true"}, "here.optional: input should be a valid boolean"),
        (
            {"port": "x", "hz": print},
            "here.hz: expected a number, text, true, false, a list or a table, got <",
        ),
        ({"port": 5}, "here.port: input should be a valid string, got 5"),
        (
            {"port": "x", "channels": [1, -2]},
            "here.channels[1]: input should be greater than or equal to 0, got -2",
        ),
        ({"port": "none"}, "here: port: expected a port, got 'none'"),
    ],
)
def test_what_is_wrong_is_named_with_its_path(values, said):
    with pytest.raises(ConfigError) as caught:
        plugins.configure(Meter, values, "here")
    assert str(caught.value).startswith(said)


def test_an_unknown_plug_in_names_the_nearest(monkeypatch):
    points = [EntryPoint(name, f"nowhere_at_all:{name}", plugins.COLLECTORS) for name in ("rapl", "battery")]
    monkeypatch.setattr(plugins, "entry_points", lambda **_: points)
    assert list(plugins.names(plugins.COLLECTORS)) == ["battery", "rapl"]
    with pytest.raises(ConfigError, match="expected a collector's name, got 'rapll'; did you mean 'rapl'"):
        plugins.load(plugins.COLLECTORS, "rapll")
    with pytest.raises(ConfigError, match="needs 'nowhere_at_all', which is not installed"):
        plugins.load(plugins.COLLECTORS, "rapl")


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_listing_imports_no_plug_in_and_the_package_loads_nothing_heavy():
    code = (
        "import sys, melt_stream; from melt_stream import plugins\n"
        "for group in (plugins.COLLECTORS, plugins.SINKS, plugins.WORKLOADS): plugins.names(group)\n"
        "heavy = {'numba', 'duckdb', 'trio', 'pyarrow', 'numpy', 'pydantic', 'melt_stream.collectors'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert python(code) == "[]"


def test_public_names_are_where_the_package_says_and_none_hides_a_module():
    for name in melt_stream.__all__:
        assert getattr(melt_stream, name) is not None
    folder = Path(melt_stream.__file__).parent
    modules = {path.stem for path in folder.iterdir()}
    assert not modules & set(melt_stream.__all__)
    assert set(melt_stream.__all__) <= set(dir(melt_stream))
    with pytest.raises(AttributeError, match="no attribute 'Metre'"):
        melt_stream.Metre  # noqa: B018


def test_a_class_of_the_users_own_is_named_by_its_module(tmp_path, monkeypatch):
    (tmp_path / "own_sensors.py").write_text("class Mine: pass\n")
    monkeypatch.chdir(tmp_path)
    assert plugins.load(plugins.COLLECTORS, "own_sensors.Mine").__name__ == "Mine"
    with pytest.raises(ConfigError, match=r"got 'own_sensors.Yours'.*is own_sensors.py in "):
        plugins.load(plugins.COLLECTORS, "own_sensors.Yours")
    with pytest.raises(ConfigError, match=r"expected a plug-in's name or module.Class, got 'no_such.Mine'"):
        plugins.load(plugins.COLLECTORS, "no_such.Mine")
