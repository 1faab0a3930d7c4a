"""Folders that stand in for ``/sys`` and ``/proc``."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path


class FakeTree:
    """A folder with files that can change, vanish, or be there and not readable. Paths are relative to it."""

    def __init__(self, root: Path, files: Mapping[str, str | None] | None = None) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        for path, text in (files or {}).items():
            if text is None:
                self.make_unreadable(path)
            else:
                self.write(path, text)

    def write(self, path: str, text: str) -> None:
        """Put a file there, instead of what is there."""
        self.vanish(path)
        full = self.root / path
        full.parent.mkdir(parents=True, exist_ok=True)
        full.write_text(text, encoding="utf-8")

    def vanish(self, path: str = "") -> None:
        """Take a file or a folder away; the whole tree where no path is given."""
        full = self.root / path
        if full.is_dir() and not full.is_symlink():
            shutil.rmtree(full)
        else:
            full.unlink(missing_ok=True)

    def make_unreadable(self, path: str) -> None:
        """Make a file be listed but not readable, for root too: it is a folder, which nobody can read."""
        self.vanish(path)
        (self.root / path).mkdir(parents=True)
