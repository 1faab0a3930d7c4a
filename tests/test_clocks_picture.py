"""The picture of docs/clocks.md: what it shows is so, and it is the one that its script draws."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np

from docs.clocks_picture import one_way, picture, two_way

DRAWN = Path(__file__).parents[1] / "docs" / "clocks.svg"


def words(svg: str) -> list[str]:
    return [text.text or "" for text in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_the_truth_is_within_the_band_and_leaves_no_bar():
    shown = two_way()[1]
    assert (shown["low"] <= shown["truth"]).all()
    assert (shown["truth"] <= shown["high"]).all()
    assert (shown["bar_low"] <= np.interp(shown["at"], shown["x"], shown["high"]) + 1e-3).all()
    assert (shown["bar_high"] >= np.interp(shown["at"], shown["x"], shown["low"]) - 1e-3).all()


def test_arrivals_lie_above_the_map_and_the_truth_below_by_the_latency():
    shown = one_way()[1]
    assert (shown["arrived"] >= np.interp(shown["at"], shown["x"], shown["map"]) - 0.02).all()
    assert (shown["map"] - shown["truth"] > 0.85).all()


def test_the_committed_picture_is_the_script_s():
    drawn = picture()
    assert words(DRAWN.read_text()) == words(drawn)
    numbers = [np.array(re.findall(r"-?\d+\.\d", svg), float) for svg in (DRAWN.read_text(), drawn)]
    np.testing.assert_allclose(*numbers, atol=0.15)
