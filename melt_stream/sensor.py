"""Sensors that are read from files: what to read, and what it means."""

from __future__ import annotations

import glob
import os
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field

from melt_stream.collector import Health
from melt_stream.errors import DeviceError, Transient
from melt_stream.poller import Poller, Rows

__all__ = ["FileSensor", "Files", "Find", "Rows", "Unreadable", "finder", "read_files"]

Find = Callable[[str], list[str]]
"""``find("sys/class/hwmon/hwmon*/name")`` returns the paths below the root that match, sorted, without the root."""
LARGEST_FILE = 1 << 20
"""Bytes; a file that goes on beyond is not a sensor's."""


class Constant(str):
    """A path whose text never changes while its device is there (a name, a range): it is read once."""

    __slots__ = ()


@dataclass(frozen=True)
class Unreadable:
    """Why a file could not be read."""

    path: str
    reason: str


class Files(Mapping[str, str]):
    """The texts of a sensor's files by key, stripped; asking for one that could not be read raises ``Transient``."""

    def __init__(self, texts: Mapping[str, str | Unreadable]) -> None:
        self._texts = texts

    def __getitem__(self, key: str) -> str:
        text = self._texts[key]
        if isinstance(text, Unreadable):
            raise Transient(f"cannot read {text.path}: {text.reason}")
        return text.strip()

    def __contains__(self, key: object) -> bool:
        return key in self._texts  # Mapping's own asks for the text, which may not be readable

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts)

    def __len__(self) -> int:
        return len(self._texts)

    def number(self, key: str, scale: float = 1.0) -> float | None:
        """Return the file's number times ``scale``; None where it is missing, unreadable, empty or not a number."""
        text = self._texts.get(key)
        if not isinstance(text, str):
            return None
        try:
            return float(text) * scale
        except ValueError:
            return None

    @property
    def unreadable(self) -> list[Unreadable]:
        """The files that could not be read."""
        return [text for text in self._texts.values() if isinstance(text, Unreadable)]


@dataclass
class FileSensor(Poller):
    """A sensor that is some files' texts; ``files`` and ``parse`` are pure, so a phone's files do as well as ours.

    Paths are relative to ``root``, without a leading slash. A file that cannot be read costs its own value alone,
    or the row, as ``parse`` decides by asking for it. Where none can be read any more, the files are looked for again.
    Raises ``DeviceError`` where there were none to begin with.
    """

    _: KW_ONLY
    root: str = "/"
    """Every path hangs below it, so that a test can give a tree of its own."""
    first: Files | None = field(default=None, init=False, repr=False, compare=False)
    """The files of the first good read, for ``rails``."""
    _paths: Mapping[str, str] = field(default_factory=dict, init=False, repr=False, compare=False)
    _varying: dict[str, str] = field(default_factory=dict, init=False, repr=False, compare=False)
    """The paths to read each time: all but the constants that were read."""
    _constants: dict[str, str] = field(default_factory=dict, init=False, repr=False, compare=False)
    _unread: bool = field(default=True, init=False, repr=False, compare=False)
    """Whether a constant is still among those to read."""

    @abstractmethod
    def files(self, find: Find) -> Mapping[str, str]:
        """Return the paths to read, each by the key under which ``parse`` asks for it; empty where there are none.

        A path that is a :class:`Constant` is read once.
        """

    @abstractmethod
    def parse(self, files: Files) -> Rows:
        """Return what the texts mean: a row, or several, each of ``stream`` unless it comes as (stream, row)."""

    def read(self) -> Rows:
        if not self._paths:
            self._paths, self._constants = self._found(), {}
            self._varying, self._unread = dict(self._paths), True
        files = self._files()
        rows = self.parse(files)
        if not isinstance(rows, dict):
            rows = list(rows)
        if self.first is None:
            self.first = files
        return rows

    def _files(self) -> Files:
        texts = _read_all(self.root, self._varying)
        if texts and not any(isinstance(text, str) for text in texts.values()):
            self._paths = {}
            raise self._lost(next(text for text in texts.values() if isinstance(text, Unreadable)))
        files = Files({**self._constants, **texts})
        if self._unread:
            self._settle(texts)
        return files

    def _settle(self, texts: Mapping[str, str | Unreadable]) -> None:
        """Keep the constants that were read, so that they are not read again."""
        for key, text in texts.items():
            if isinstance(self._paths[key], Constant) and isinstance(text, str):
                self._constants[key] = text
                del self._varying[key]
        self._unread = any(isinstance(path, Constant) for path in self._varying.values())

    def check(self) -> Health:
        """Say whether its files are there and can be read, for ``melt-stream doctor``."""
        paths = self.files(finder(self.root))
        if not paths:
            return Health(
                False, f"none of its files is below {self.root}", "another machine, or its kernel driver"
            )
        files = read_files(self.root, paths)
        if len(files.unreadable) == len(files):
            gone = files.unreadable[0]
            return Health(False, f"cannot read {gone.path}: {gone.reason}", _cure(gone))
        return Health(True, f"{len(files) - len(files.unreadable)} of {len(files)} files can be read")

    def _found(self) -> Mapping[str, str]:
        if paths := self.files(finder(self.root)):
            return paths
        health = self.check()
        kind = DeviceError if self.first is None else Transient
        raise kind(f"{type(self).__name__}: {health.what}; try: {health.cure}")

    def _lost(self, why: Unreadable) -> DeviceError:
        text = f"{type(self).__name__}: cannot read {why.path}: {why.reason}"
        if self.first is None and (cure := _cure(why)):
            return DeviceError(f"{text}; try: {cure}")
        return Transient(text)


def finder(root: str) -> Find:
    """Return the ``find`` of files below a local folder."""
    return lambda pattern: sorted(glob.glob(pattern, root_dir=root))  # noqa: PTH207 - Path's is slower, and absolute


def read_files(root: str, paths: Mapping[str, str]) -> Files:
    """Read local files; those that cannot be read are ``Unreadable``."""
    return Files(_read_all(root, paths))


def _read_all(root: str, paths: Mapping[str, str]) -> dict[str, str | Unreadable]:
    return {key: _read(root, path) for key, path in paths.items()}


def _read(root: str, path: str) -> str | Unreadable:
    # Opened anew each time: an open descriptor goes on reading a file that is no longer there.
    # os.open and os.read: 7 us a file of sysfs, where open() took 10 and Path.read_text 19.
    full = f"{root}/{path}"
    try:
        fd = os.open(full, os.O_RDONLY | os.O_CLOEXEC)
        try:
            text = os.read(fd, 65536)
            while more := os.read(fd, 65536):  # /proc may stop before a line that does not fit
                text += more
                if len(text) > LARGEST_FILE:
                    return Unreadable(full, f"longer than {LARGEST_FILE} bytes")
        finally:
            os.close(fd)
    except OSError as exc:
        return Unreadable(full, exc.strerror or str(exc))
    return text.decode(errors="replace")


def _cure(why: Unreadable) -> str:
    return f"sudo chmod a+r {why.path}" if "denied" in why.reason or "permitted" in why.reason else ""
