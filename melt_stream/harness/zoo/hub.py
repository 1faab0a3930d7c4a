"""The Hugging Face hub, through its own client (extra ``zoo``): what a repository holds, and one file of it.

``$HF_ENDPOINT`` says where the hub is, ``$HF_TOKEN`` or ``hf auth login`` who asks; both are the client's own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from melt_stream.collectors._driver import driver
from melt_stream.errors import ConfigError, DataError, Transient
from melt_stream.harness.zoo.registry import Model

_CLIENT = "huggingface_hub"


@dataclass(frozen=True)
class Remote:
    """A file on the hub."""

    bytes: int | None
    sha256: str
    """Of large files (LFS); empty for small ones, which git keeps."""


@dataclass(frozen=True)
class Repository:
    """A repository at one commit."""

    commit: str
    files: dict[str, Remote]


def look(model: Model) -> Repository:
    """Return what a model's repository holds; raises as ``fetch``."""
    client = driver(_CLIENT, f"pull {model.name}", "zoo")
    with _told(model):
        info = client.HfApi(endpoint=_endpoint()).model_info(
            model.source.hub, revision=model.source.revision, files_metadata=True
        )
    files = {
        _inside(model, file.rfilename): Remote(file.size, file.lfs.sha256 if file.lfs else "")
        for file in info.siblings or ()
    }
    return Repository(str(info.sha), files)


def missing(folder: Path, wanted: Mapping[str, Remote]) -> int:
    """Return how many bytes are still to come."""
    return sum((remote.bytes or 0) - _have(folder / name) for name, remote in wanted.items())


def fetch(model: Model, commit: str, name: str, remote: Remote, folder: Path) -> Path:
    """Download a file into ``folder`` and return its path; what an earlier, interrupted call left there is gone on with.

    Raises ``ConfigError`` where the repository or file is not there or its terms are to be accepted first, and
    ``Transient`` where the network fails.
    """
    client = driver(f"{_CLIENT}.file_download", f"pull {model.name}", "zoo")
    utilities = driver(f"{_CLIENT}.utils", f"pull {model.name}", "zoo")
    whole, part = folder / name, _part(folder / name)
    if whole.exists():
        return whole
    part.parent.mkdir(parents=True, exist_ok=True)
    url = client.hf_hub_url(model.source.hub, name, revision=commit, endpoint=_endpoint())
    with _told(model), part.open("ab") as file:
        if remote.bytes is None or file.tell() > remote.bytes:
            file.truncate(0)
        client.http_get(
            url,
            file,
            resume_size=file.tell(),
            headers=utilities.build_hf_headers(),
            expected_size=remote.bytes,
        )
    part.rename(whole)
    return whole


@contextmanager
def _told(model: Model) -> Iterator[None]:
    """Make the client's errors ours."""
    errors = driver(f"{_CLIENT}.errors", f"pull {model.name}", "zoo")
    where = f"{model.name}: {_endpoint() or 'the hub'}, {model.source.hub}"
    try:
        yield
    except errors.GatedRepoError as exc:
        raise ConfigError(_gate(model, where)) from exc
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.EntryNotFoundError) as exc:
        if model.licence.gated and isinstance(exc, errors.RepositoryNotFoundError):
            raise ConfigError(
                _gate(model, where)
            ) from exc  # 401 to who has no token: the hub does not say which
        raise ConfigError(f"{where}: expected it there, got {_first(exc)}") from exc
    except errors.HfHubHTTPError as exc:
        if model.licence.gated and exc.response is not None and exc.response.status_code in {401, 403}:
            raise ConfigError(_gate(model, where)) from exc
        raise Transient(
            f"{where}: expected an answer, got {_first(exc)}; pull again, it goes on where it was"
        ) from exc
    except (errors.HTTPError, OSError) as exc:
        raise Transient(
            f"{where}: expected a connection, got {type(exc).__name__}: {exc}; pull again, it goes on where it was"
        ) from exc


def _inside(model: Model, name: str) -> str:
    """Refuse a name that leads out of the folder that it is for."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise DataError(
            f"{model.name}: {model.source.hub}: expected names within the repository, got {name!r}"
        )
    return name


def _gate(model: Model, where: str) -> str:
    url = model.licence.url or f"https://huggingface.co/{model.source.hub}"
    return (
        f"{where}: expected access, got none: its terms ({model.licence.name}) are to be accepted first; accept them at "
        f"{url}, then log in with `hf auth login` or set HF_TOKEN, and pull again"
    )


def _first(exc: Exception) -> str:
    return " ".join(str(exc).split())[:300]


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT") or None


def _part(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _have(path: Path) -> int:
    for there in (path, _part(path)):
        if there.exists():
            return there.stat().st_size
    return 0
