"""Finding samples in a PPK2's bytes, whatever was lost or added among them. Pure: bytes in, words and breaks out.

There are no frames but a counter of 6 bits in each sample. What goes on counting is taken as it is. Where the counter
breaks off, the next words decide:

* It is back where it should be within a few words: the firmware counts unsteadily at times, as the official app
  allows for; nothing was lost.
* It goes on from elsewhere, perhaps at another of the four alignments: something was lost. How many samples
  is known modulo 64 here; the sample clock tells the rest.

No word is given out that a loss may have put together: the last few wait until more follow them, words that overlap
the new run are dropped, and so is the run's first word, whose lower bytes may come from before the loss (and the
second where that may have begun a word early, by chance).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from melt_stream.collectors import _decode_ppk2 as kernels
from melt_stream.errors import Transient

Words = np.ndarray[Any, np.dtype[np.uint32]]
HELD = 4
"""Words that wait for those after them: by chance, one in 64 has the right counter at a wrong alignment."""
STEADY = 32
"""Words that must follow one another before a new alignment is believed."""
SAME = 5
"""... before a jump at the same alignment is (the official app waits for as many)."""
UNSTEADY = 4
"""A counter may be wrong in so many words before it is back where it should be."""
AHEAD = 4 * (STEADY + SAME + UNSTEADY + 2)
"""Bytes after a break that are needed to tell what it is."""
JUNK = 4
"""With so many bytes that belong to neither run, the last word before them may be one of them, unless the
counter goes on as if nothing had come between."""
HOPELESS = 1 << 16
"""Bytes without one run of samples in them: this is something else."""


class Break(NamedTuple):
    """Samples are missing between the words before and after."""

    residue: int
    """How many, modulo 64."""
    thrown: int
    """Bytes among them that were no samples, or may not have been."""


@dataclass
class Framing:
    """The state between two blocks of bytes."""

    unsteady: int = 0
    """Words whose counter was wrong though nothing was lost."""
    _rest: bytes = b""
    _next: int = -1
    """The counter that the first word of ``_rest`` should have; -1 before the first sample."""
    _words: list[Words | Break] = field(default_factory=list)

    @property
    def waiting(self) -> int:
        """Words at the end that were not given out yet."""
        return len(self._rest) // 4

    def feed(self, data: bytes) -> list[Words | Break]:
        """Take bytes as they come; return runs of words, and breaks between them.

        Raises ``Transient`` where no samples are found in 64 kB.
        """
        self._rest += data
        while self._step():
            pass
        found, self._words = self._words, []
        return found

    def _step(self) -> bool:
        """Go on to the next break, or past one; False where more bytes are needed."""
        if self._next < 0:
            return self._begin()
        words = np.frombuffer(self._rest, "<u4", len(self._rest) // 4)
        good = kernels.following(words, self._next)
        if good == len(words):
            self._give(words[: max(0, good - HELD)])
            return False
        if len(self._rest) - 4 * good < AHEAD:
            self._give(words[: max(0, good - HELD)])
            return False
        if (back := self._back(words[good:], self._next + good)) is not None:
            self.unsteady += back
            self._give(words[: good + back])
            return True
        return self._past(words, good)

    def _back(self, words: Words, counter: int) -> int | None:
        """How many words have a wrong counter before it is back where it should be; None where it is not."""
        for wrong in range(1, UNSTEADY + 1):
            if kernels.following(words[wrong : wrong + SAME], counter + wrong) == SAME:
                return wrong
        return None

    def _past(self, words: Words, good: int) -> bool:
        """Skip to the run after the break at word ``good``; False where none is to be seen yet."""
        data = np.frombuffer(self._rest, np.uint8)
        runs = [
            kernels.find_run(data, begin, 4, STEADY)
            for begin in range(max(0, 4 * (good - HELD)) + 1, max(0, 4 * (good - HELD)) + 5)
            if begin % 4
        ]
        shifted = min((at for at in runs if at >= 0), default=None)
        same = kernels.find_run(data, 4 * good, 4, SAME)
        at = same if shifted is None or 0 <= same <= shifted - 4 * SAME else shifted
        if at < 0:
            return self._give_up(good)
        first = at + (8 if at % 4 and at + 2 <= 4 * good else 4)
        kept = min(good, at // 4)
        if kept and at - 4 * kept >= JUNK and (int(data[at + 2]) >> 2) != (self._next + kept) & 63:
            kept -= 1
        counter = int(data[first + 2]) >> 2
        residue = (counter - self._next - kept) & 63
        run = words[:kept].copy()
        if kept > 1:  # the last byte of the last word may come from after the loss
            run[-1] = (run[-1] & np.uint32(0xFFFFFF)) | (run[-2] & np.uint32(0xFF000000))
        self._words += [run, Break(residue, first - 4 * kept)]
        self._rest, self._next = self._rest[first:], counter
        return True

    def _give_up(self, good: int) -> bool:
        """Keep what may belong to a run that is still to come."""
        self._give(np.frombuffer(self._rest, "<u4", max(0, good - HELD)))
        if len(self._rest) > HOPELESS:
            raise Transient(
                f"expected samples whose counter goes up by one, got {len(self._rest)} bytes without; "
                "is it a PPK2, and its first port?"
            )
        return False

    def _begin(self) -> bool:
        """Find the first run: nothing is known of what comes before it."""
        if len(self._rest) < AHEAD:
            return False
        data = np.frombuffer(self._rest, np.uint8)
        at = kernels.find_run(data, 0, 1, STEADY)
        if at < 0:
            return self._give_up(0)
        self._rest, self._next = self._rest[at + 4 :], ((int(data[at + 2]) >> 2) + 1) & 63
        return True

    def _give(self, words: Words) -> None:
        if len(words):
            self._words.append(words.copy())
            self._next = (self._next + len(words)) & 63
            self._rest = self._rest[4 * len(words) :]
