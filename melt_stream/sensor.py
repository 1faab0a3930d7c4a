"""Sensors that are read from files: what to read, and what it means."""

from __future__ import annotations

import glob
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, ClassVar, final

from melt_stream.collector import Health
from melt_stream.errors import DeviceError, Transient
from melt_stream.hand import ClockShown, Rows
from melt_stream.poller import Poller
from melt_stream.reading import Reader, Text, Unreadable, mounts

__all__ = ["ClockShown", "FileSensor", "Files", "Find", "Rows", "Unreadable", "finder", "read_files"]

Find = Callable[[str], list[str]]
"""``find("sys/class/hwmon/hwmon*/name")`` returns the paths below the root that match, sorted, without the root."""


class Constant(str):
    """A path whose text never changes while its device is there (a name, a range): it is read once."""

    __slots__ = ()


class Files(Mapping[str, str]):
    """The texts of a sensor's files by key, stripped; asking for one that could not be read raises ``Transient``."""

    def __init__(self, texts: Mapping[str, Text]) -> None:
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

    elsewhere: ClassVar[str] = ""
    """The kind of collector to try on a device that shows none of its files."""
    _: KW_ONLY
    root: str = "/"
    """Every path hangs below it, so that a test can give a tree of its own."""
    first: Files | None = field(default=None, init=False, repr=False, compare=False)
    """The files of the first good read, for ``rails``."""
    _paths: Mapping[str, str] = field(default_factory=dict, init=False, repr=False, compare=False)
    _reader: Reader | None = field(default=None, init=False, repr=False, compare=False)
    """Reads what is to be read each time: all but the constants that were read."""
    _constants: dict[str, str] = field(default_factory=dict, init=False, repr=False, compare=False)
    _unread: bool = field(default=True, init=False, repr=False, compare=False)
    """Whether a constant may be among those to read."""

    @abstractmethod
    def files(self, find: Find) -> Mapping[str, str]:
        """Return the paths to read, each by the key under which ``parse`` asks for it; empty where there are none.

        A path that is a :class:`Constant` is read once.
        """

    @abstractmethod
    def parse(self, files: Files) -> Rows:
        """Return what the texts mean: a row, or several, each of ``stream`` unless it comes as (stream, row).

        Where they are stamped by a clock of their own, rows have ``tick``, and :class:`ClockShown` tells what that clock showed.
        """

    @final
    def read(self) -> Rows:
        """Look, and tell: for those who call it themselves; what differs in a sensor of yours goes there."""
        return self.tell(self.look())

    def __init_subclass__(cls) -> None:
        if "read" in cls.__dict__:  # it would never be called
            raise TypeError(
                f"{cls.__name__}: expected files and parse, or look and tell, got a read of its own"
            )

    def look(self) -> Any:
        """Return the texts of all files, as :class:`Files`."""
        if self._reader is None:
            self._paths, self._constants, self._unread = self._found(), {}, True
            self._reader = Reader(self.root, self._paths, mounts())
        return self._files(self._reader)

    def tell(self, seen: Any) -> Rows:
        rows = self.parse(seen)
        if not isinstance(rows, dict):
            rows = list(rows)
        if self.first is None:
            self.first = seen
        return rows

    def end(self) -> None:
        if self._reader is not None:
            self._reader.close()

    def _files(self, reader: Reader) -> Files:
        texts = reader.read()
        if texts and Unreadable in (kinds := set(map(type, texts.values()))) and len(kinds) == 1:
            reader.close()
            self._reader = None
            raise self._lost(next(text for text in texts.values() if isinstance(text, Unreadable)))
        files = Files({**self._constants, **texts} if self._constants else texts)
        if self._unread:
            self._settle(reader, texts)
        return files

    def _settle(self, reader: Reader, texts: Mapping[str, Text]) -> None:
        """Keep the constants that were read, so that they are not read again."""
        constants = {key for key in texts if isinstance(self._paths[key], Constant)}
        read = {key: text for key in constants if isinstance(text := texts[key], str)}
        self._constants.update(read)
        reader.drop(read)
        self._unread = len(read) < len(constants)

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
    return Files(Reader(root, paths).read())


def _cure(why: Unreadable) -> str:
    return f"sudo chmod a+r {why.path}" if "denied" in why.reason or "permitted" in why.reason else ""
