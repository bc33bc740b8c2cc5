"""The blocking classes; made by `python -m crdt_sync_client.blocking_generator`."""

from __future__ import annotations

from crdt_sync.ids import RecordId

from ...checkout_values import Checkout
from ...engine.write_life import WriteLife
from ...records import Durable, RecordState
from ...records import WriteResult as AsyncWriteResult
from ..wrapping import BlockingValue


class WriteResult(BlockingValue[AsyncWriteResult]):
    """What one write did. `resolved` are the ids of conflicts that it settled by having seen all versions.

    `changed` is False when everything already was as asked. `below` are the types and ids of records that
    were deleted or restored together with this one, because they belong to it.

    `waits_for` is another device's checkout of what was written, if one is known of: the write is saved here
    and seen on this device, and sent when that ends. `late`: this device had checked the record out, and that
    ended before it was checked in: the write merges like any other, and is marked. `notice` says it in words.
    """

    @property
    def id(self) -> RecordId:
        return self._read(lambda: self._inner.id)

    @property
    def type(self) -> str:
        return self._read(lambda: self._inner.type)

    @property
    def resolved(self) -> tuple[str, ...]:
        return self._read(lambda: self._inner.resolved)

    @property
    def state(self) -> RecordState:
        return self._read(lambda: self._inner.state)

    @property
    def changed(self) -> bool:
        return self._read(lambda: self._inner.changed)

    @property
    def below(self) -> tuple[tuple[str, RecordId], ...]:
        return self._read(lambda: self._inner.below)

    @property
    def space(self) -> str:
        """The id of its space, hex."""
        return self._read(lambda: self._inner.space)

    @property
    def waits_for(self) -> Checkout | None:
        return self._read(lambda: self._inner.waits_for)

    @property
    def late(self) -> bool:
        return self._read(lambda: self._inner.late)

    @property
    def notice(self) -> str:
        """What a person should know of checkouts that stand against this write; empty if there is nothing."""
        return self._read(lambda: self._inner.notice)

    @property
    def ref(self) -> str:
        """The write as text: `Device.wait` and `Device.life` take it, also after a restart of the app.

        Raises CannotWait for what a transaction will only do at its end.
        """
        return self._read(lambda: self._inner.ref)

    def wait(self, until: Durable = "relayed", *, timeout_s: float | None = None) -> None:
        """Returns when the write is durable: `write.wait("delivered")`, see `Device.wait`."""
        self._run(lambda: self._inner.wait(until, timeout_s=timeout_s))

    def life(self) -> WriteLife:
        """What became of the write so far, see `Device.life`."""
        return self._run(lambda: self._inner.life())
