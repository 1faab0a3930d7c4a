"""What failed inside an exception group, told from the cancellation beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from melt_stream.errors import Transient


@contextmanager
def failures(handle: Callable[[BaseException], None]) -> Iterator[None]:
    """Hand a failure in the body to ``handle`` instead of raising it.

    Of a group it is the exception that matters: the first that asking again would not cure, else the first. What
    is no failure (``Cancelled``, ``KeyboardInterrupt``) is raised on, also out of a group with failures in it.
    """
    try:
        yield
    except (Exception, BaseExceptionGroup) as exc:  # noqa: BLE001 - plug-ins may raise anything; all of it is reported
        ending, failure = _split(exc)
        if failure is not None:
            handle(min(_leaves(failure), key=lambda leaf: isinstance(leaf, Transient)))
        if ending is not None:
            raise ending from None


def _split(exc: BaseException) -> tuple[BaseException | None, BaseException | None]:
    if isinstance(exc, BaseExceptionGroup):
        failure, ending = exc.split(Exception)
        return ending, failure
    return None, exc


def _leaves(exc: BaseException) -> Iterator[BaseException]:
    if isinstance(exc, BaseExceptionGroup):
        for inner in exc.exceptions:
            yield from _leaves(inner)
    else:
        yield exc
