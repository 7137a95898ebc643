"""A `ray.util.ActorPool` of one object, whose methods run when they are called: stages without Ray's workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

from compass_ray.config import Resources


class InProcessPool:
    """A pool of one object of this process. An error of a call is raised where its result is taken."""

    def __init__(self, actor: Any) -> None:
        self._actor, self._results = _Remote(actor), list[Callable[[], Any]]()

    def submit(self, call: Callable[[Any, Any], Any], value: Any) -> None:
        try:
            result = call(self._actor, value)
        except Exception as error:
            self._results.append(lambda error=error: _raise(error))
        else:
            self._results.append(lambda: result)

    def has_next(self) -> bool:
        return bool(self._results)

    def get_next_unordered(self) -> Any:
        return self._results.pop()()

    def map_unordered(self, call: Callable[[Any, Any], Any], values: Sequence[Any]) -> Iterator[Any]:
        return (call(self._actor, value) for value in values)


class _Remote:
    """``method.remote`` of an object is its method."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=getattr(self._actor, name))


def _raise(error: Exception) -> None:
    raise error


def open_pool(actor: type, resources: Resources, tasks: int, *arguments: Any) -> InProcessPool:
    """As `ray_session.open_actor_pool`."""
    return InProcessPool(actor(*arguments))
