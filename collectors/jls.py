"""Importer ``jls``: a recording of a Joulescope (or of whatever else writes .jls): current, voltage, power and inputs by sample."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import trio

from melt_stream.collectors._files import open_regular
from melt_stream.collectors._jls import messages
from melt_stream.collectors._jls_rows import Filler
from melt_stream.collectors._process import guarded
from melt_stream.errors import ConfigError, DataError
from melt_stream.outlet import Outlet

LARGEST = 1 << 40
HEAD = 32
MAGIC = b"jlsfmt\r\n"
PATIENCE_S = 60.0
"""So long the reader may take for one block."""


@dataclass
class Jls:
    """Imports one .jls file (version 2) and ends.

    Raises ``ConfigError`` where ``path`` holds no such file or several, ``DataError`` with the position where it is damaged, or was
    never closed. The file is not changed.
    """

    path: Path
    """The file, or the folder of one."""
    start_utc_ns: int | None = field(default=None, init=False)

    @staticmethod
    def example() -> dict[str, Any]:
        """Twenty samples of 1 A at 2 V, written by pyjls 0.17, with one entry of a UTC map."""
        return {"kind": "files", "packed": {"one.jls": _EXAMPLE}}

    async def collect(self, out: Outlet) -> None:
        if find_spec("pyjls") is None:
            raise ConfigError("expected the package pyjls, got none; try: pip install 'melt-stream[jls]'")
        path = _file(Path(self.path))
        _check_head(path)
        filler = Filler(out, str(path))
        command = [sys.executable, "-m", "melt_stream.collectors._jls_child", str(path.resolve())]
        async with guarded() as start:
            child = await start(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            assert child.stdout is not None
            async with aclosing(messages(child.stdout)) as told:
                await self._fill(filler, told)
        filler.close()
        self.start_utc_ns = filler.start_utc_ns
        out.ready()

    async def _fill(self, filler: Filler, told: AsyncGenerator[tuple[dict[str, Any], bytes], None]) -> None:
        try:
            while True:
                with trio.fail_after(PATIENCE_S):
                    message, data = await anext(told)
                if message["kind"] == "end":
                    return
                filler.take(message, data)
                await filler.out.room()
        except (StopAsyncIteration, trio.TooSlowError, ValueError, KeyError) as exc:
            raise DataError(
                f"{filler.path}, {filler.where}: expected what pyjls can read, got {type(exc).__name__} {exc} of its "
                "reader; the file is damaged, or made to harm"
            ) from exc


def _file(path: Path) -> Path:
    if not path.is_dir():
        return path
    found = sorted(path.glob("*.jls"))
    if len(found) != 1:
        names = ", ".join(one.name for one in found[:5]) or "none"
        raise ConfigError(f"{path}: expected one .jls file, got {names}; name it")
    return found[0]


def _check_head(path: Path) -> None:
    """See that it is one, and whole: pyjls mends in place what is not, and nobody asked for that."""
    with open_regular(path, LARGEST) as file:
        head = file.read(HEAD)
        size = file.seek(0, 2)
    if len(head) < HEAD or not head.startswith(MAGIC):
        raise DataError(f"{path}, byte 0: expected the head of a .jls file (version 2), got {head[:16]!r}")
    told = int.from_bytes(head[16:24], "little")
    if told != size:
        raise DataError(
            f"{path}, byte 16: expected a file of the {told} bytes that it tells of, got {size}: it was cut, or never closed; "
            "try: `pyjls info` on a copy, which mends it as far as it can"
        )


_EXAMPLE = (
    "c-qU#DNf5R;pI}`Qjk(m*d%j+hXDo{>)Xst7|?(N5?gh7-ed)4RCz`q&VjN&#z{ppPzcg<@{<yC;uG`o@=Fp+GV}A|i}Op1l2aMv"
    "vvP_V<aHV34fPE448SbT^{2EZFrw;b0^&JPH=T`*ISg_kivmPW0E)SwI0cGn39$GlGd(Xche4h}KCJw-_y(x^FF@66KxvR4CO!J&"
    "9l-?Q!~CfU#0^k+*3^k783qBkoubZB0d*(LKL$`akXujQs5r0ynr>kJF@(y2@M+6Pp~2!0^mNY%gpp8py1xITPN^MU!A3>~x`qt$"
    "UO)t50~0hD0p&Js-6R*l0#OGGPbQ%KJwO`dhG~mJmVkm6l%8KOL)<99fS_UNnwB8Bw5TXGuY^I~kwIRzw(xNQ)V;9yRbYT50FaxF"
    "PG<#5utLOP{!#?WH$dfgt=-%4ffMRqu7Qj9sf<suEuij%`Nsh250G1}%7UIffXc)CV+i#J2(KyMb9m6CUp5FE<{t|re>ksRo4W!k"
    "5A%;Dl0Q}*U9w{XG(H%(2hJZ3hf1^~*r6OYSUz9^rx}ntXPR`040Jvy%g-rEOb1p=VGQzV3-~rvK-~)qUj+sxcs{tPZOotmEm>gx"
    "QUuDw^1)s;jgkq_@Rr~ixNv_LI=k8d>Q0z{450o1xpiu!2k#50Jj_3aP=A2%9a+migC!quK+`eIKNd*-=o6d<Z^gj;V~OOCnYX%3"
    "2U~pv16IKNDgkxp&iu}N<aQXW&RVc$C)j_ATtT(y`jvnx6F}(<h=1MShc|yjz-bm7LiW_f3=H$<{lACq4rK;L0gxL&Zb@G{dlI@o"
    "VD$nB>`CODjILh=s9yo<kL?u-YmoIf!2N;j9|ne%b3O>5n_~?%2ZTlETBl-~18vtJx#zFbn^JUhY>>=p-I(_ompRDs6ZB|%BWC<C"
    "fx`r3&Xy-KUohhb96Z#-4BPF~1u^4?2_8R{@x7<e<7Wa={m?#*KLj&=nBeiVvdQcVmhf<3K=luUVfNuE=;r)qfR(2V438do>;nK{"
    "IOcK"
)
"""Deflated, in base 85."""
