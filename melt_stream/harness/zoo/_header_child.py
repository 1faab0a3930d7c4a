"""Reads a GGUF file's header in a process of its own: ``python -m ..._header_child FILE``; JSON goes to stdout.

The format is read by llama.cpp's own library (PyPI gguf), in Python and numpy: a hostile file that would fill the memory
or take for ever ends here, by a limit on both. ``header.py`` reads what this writes.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from typing import Any

MEMORY = 4 << 30
"""Bytes of address space beside the file's own, which is mapped."""
SECONDS = 120
LONGEST = 1024
"""Entries of an array, and characters of a text, that are told; of longer ones only how many there are."""
DAMAGE = (ValueError, IndexError, KeyError, TypeError, OverflowError, MemoryError, OSError, AttributeError)


def main(path: str) -> None:
    """Tell the header, or what is wrong with it."""
    room = MEMORY + Path(path).stat().st_size
    resource.setrlimit(resource.RLIMIT_AS, (room, room))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    try:
        told = _told(path)
    except DAMAGE as exc:
        told = {"error": f"{type(exc).__name__}: {exc}"[:300]}
    json.dump(told, sys.stdout)


def _told(path: str) -> dict[str, Any]:
    import numpy as np
    from gguf import GGUFReader

    class Bounded(GGUFReader):
        """The library reads nothing beyond a file's end and goes on with it: 2^40 times, if the file says so.

        It looks at a plain view of the mapped file: SmolLM2 takes 0.8 s of a CPU so, and 1.9 s through a ``memmap``.
        """

        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, np.asarray(value) if name == "data" else value)

        def _get(self, offset: int, dtype: Any, count: int = 1, *more: Any, **named: Any) -> Any:
            got = super()._get(offset, dtype, count, *more, **named)
            if len(got) < count:
                raise ValueError(f"the file's end instead of {count} values at byte {offset}")
            return got

    reader = Bounded(path)
    tensors = [
        [tensor.name, tensor.tensor_type.name, [int(n) for n in tensor.shape], int(tensor.n_bytes)]
        for tensor in reader.tensors
    ]
    return {"fields": {name: _value(field) for name, field in reader.fields.items()}, "tensors": tensors}


def _value(field: Any) -> Any:
    """A number or text; a short list; ``{"count": n}`` of what is longer."""
    from gguf import GGUFValueType

    if field.types[:1] == [GGUFValueType.ARRAY] and len(field.data) > LONGEST:
        return {"count": len(field.data)}
    value = field.contents()
    return {"count": len(value)} if isinstance(value, str) and len(value) > LONGEST else value


if __name__ == "__main__":
    main(sys.argv[1])
