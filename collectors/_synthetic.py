"""Synthetic prompts: random words, cut to a number of tokens by the tokenizer of whoever is asked."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, PositiveInt

WORDS = (
    "about after again air all along also another any are around ask away back because been before best better big book "
    "both boy but call came can car change children city close cold come could country cut day did different does door down "
    "each early earth east eat end enough even every eye face family far fast father feet few field find fire first fish five "
    "food for found four friend from full game gave get girl give go good great green ground group grow half hand hard has have "
    "head hear help here high home horse hot hour house how idea just keep kind king land large last late learn leave left let "
    "letter life light line list little live long look love made make man many map mean men might mile money moon more most "
    "mother move much music must name near need never new next night north now number off often old once one only open other "
    "our out over own page paper part people place plant play point quick rain read real red rest right river road rock room "
    "run said same saw say school sea second see set she ship short should show side six small snow some song soon south stand "
    "star start still stop story street strong such sun sure table take talk tell ten than that the their them then there these "
    "thing think this those three time today told too took top town travel tree true turn two under until upon use very voice "
    "wait walk want war warm was watch water way week well went west what wheel when where which white who whole why will wind "
    "with wood word work world would write year you young"
)
FILLER = "a"
"""One token, after a space, in every vocabulary that is known to us."""

MOST = 10_000_000
"""Words that are drawn in all: some 50 MB."""


@dataclass
class Synthetic:
    """Which prompts to make."""

    tokens: Annotated[int, Field(ge=1, le=2**20)]
    """Of each whole prompt, with what the chat template and a system message add."""
    output: PositiveInt | None = None
    """Of each answer, at most (``ignore_eos``: exactly); None: the workload's ``max_tokens``."""
    count: Annotated[int, Field(ge=1, le=10_000)] = 1
    seed: int = 1

    def __post_init__(self) -> None:
        if self.tokens * self.count > MOST:
            raise ValueError(
                f"expected tokens x count <= {MOST}, got {self.tokens} x {self.count}; ask fewer with repeat"
            )

    def drafts(self) -> list[str]:
        """Return ``count`` texts of ``tokens`` words, each drawn by itself; the same for the same ``seed``."""
        words = WORDS.split()
        return [
            " ".join(random.Random(f"{self.seed}:{n}").choices(words, k=self.tokens))  # noqa: S311 - no secret
            for n in range(self.count)
        ]


async def cut(draft: str, wanted: int, count: Callable[[str], Awaitable[int]]) -> tuple[str, int]:
    """Return the draft with as many words as ``wanted`` tokens are, and how many tokens ``count`` finds in that.

    Asks ``count`` about log2(words) times: the most words that fit are searched, and what is left is filled with one-token
    words. The number differs from ``wanted`` where not even the first word fits, or the tokenizer has no such filler.
    """
    words = draft.split()
    least, most = 1, len(words)
    while least < most:
        middle = (least + most + 1) // 2
        if await count(" ".join(words[:middle])) <= wanted:
            least = middle
        else:
            most = middle - 1
    text = " ".join(words[:least])
    found = await count(text)
    if found < wanted:
        text += f" {FILLER}" * (wanted - found)
        found = await count(text)
    return text, found
