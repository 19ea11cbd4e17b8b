"""Which event of a line trace made an object: known by its identity, as long as it is held."""

from collections import OrderedDict
from typing import Any

from align.record.objects import SCALARS, weight_of
from align.sides import Side

HELD = 1 << 30  # bytes of arrays that are kept alive so that they can be recognised


class Known:
    """Objects, each with the event that made it. They are held, so that their identity stays their own.

    Where their arrays are too much, the oldest are let go and no longer known.
    """

    def __init__(self, side: Side) -> None:
        self._side = side
        self._objects: dict[int, tuple[Any, int, Any]] = {}  # by id: object, its event, its version
        self._heavy: OrderedDict[int, int] = OrderedDict()  # bytes of the arrays among them, the oldest first
        self._held = 0

    def remember(self, value: Any, event: int) -> None:
        if isinstance(value, SCALARS) and not isinstance(value, (int, float, str)):
            return
        self._objects[id(value)] = value, event, self._version(value)
        weight = weight_of(value)
        if weight and id(value) not in self._heavy:
            self._heavy[id(value)] = weight
            self._held += weight
        while self._held > HELD and len(self._heavy) > 1:
            oldest, weight = self._heavy.popitem(last=False)
            self._objects.pop(oldest, None)
            self._held -= weight

    def event(self, value: Any) -> int | None:
        """The event that made an object, whether or not it has changed since."""
        known = self._objects.get(id(value))
        return known[1] if known is not None and known[0] is value else None

    def unchanged(self, value: Any) -> int | None:
        """The event that made an object as it is now."""
        known = self._objects.get(id(value))
        if known is None or known[0] is not value or known[2] != self._version(value):
            return None
        return known[1]

    def _version(self, value: Any) -> Any:
        if isinstance(value, (list, dict, set)):
            return len(value)
        return self._side.version(value) if self._side.is_tensor(value) else None
