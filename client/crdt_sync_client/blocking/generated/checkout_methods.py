"""The blocking classes; made by `python -m crdt_sync_client.blocking_generator`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from ...checkout_methods import DEFAULT_TTL_S
from ...checkout_methods import CheckoutBlock as AsyncCheckoutBlock
from ...checkout_methods import CheckoutMethods as AsyncCheckoutMethods
from ...checkout_values import CheckinResult, Checkout, CheckoutResult
from ...engine.queries import Where
from ..wrapping import Blocking, BlockingContext

W = TypeVar("W", bound=AsyncCheckoutMethods)


class CheckoutMethods(Blocking[W]):
    """See the module."""

    def checkout(
        self,
        type: str,
        ids: Sequence[str] = (),
        *,
        where: Where = None,
        ttl_s: float = DEFAULT_TTL_S,
        children: bool = True,
        space: str | None = None,
    ) -> CheckoutBlock:
        """`check_out` for an `with` block, which renews it and at its end checks everything in."""
        made = self._call(
            lambda: self._inner.checkout(type, ids, where=where, ttl_s=ttl_s, children=children, space=space)
        )
        return CheckoutBlock(made, self._background, self._kept())

    def check_out(
        self,
        type: str,
        ids: Sequence[str] = (),
        *,
        where: Where = None,
        ttl_s: float = DEFAULT_TTL_S,
        children: bool = True,
        space: str | None = None,
    ) -> list[CheckoutResult]:
        """Have records for this device alone, for `ttl_s` seconds: these, or those for which `where` holds.

        With `children` also those that belong to them, at any depth. This device is brought up to date first,
        so that what is new is among them, and again when they are granted. Each is granted or refused by
        itself. Raises RelayUnreachable when the relay cannot be asked; RecordNotFound, UnknownType,
        ValidationError, also for a `ttl_s` of more than seven days.
        """
        return self._run(
            lambda: self._inner.check_out(type, ids, where=where, ttl_s=ttl_s, children=children, space=space)
        )

    def renew_checkouts(
        self, *, ttl_s: float = DEFAULT_TTL_S, space: str | None = None
    ) -> list[CheckoutResult]:
        """Keep what is checked out here for `ttl_s` seconds from now, and never for less than it was.

        What has run out is asked for anew: another device may have it by now. Raises as `check_out`.
        """
        return self._run(lambda: self._inner.renew_checkouts(ttl_s=ttl_s, space=space))

    def check_in(
        self, type: str | None = None, ids: Sequence[str] = (), *, space: str | None = None
    ) -> list[CheckinResult]:
        """Send everything, then give records back: these, those of that type, or all checked out here.

        What belongs to them and is checked out here goes back with them. Says for each record what was
        delivered and what was not. When the relay cannot be reached, everything stays checked out. Raises
        RelayUnreachable; RecordNotFound for what this device has not checked out.
        """
        return self._run(lambda: self._inner.check_in(type, ids, space=space))

    def break_checkouts(
        self,
        type: str | None = None,
        ids: Sequence[str] = (),
        *,
        holder: str | None = None,
        space: str | None = None,
    ) -> list[CheckoutResult]:
        """As an admin free records, whoever has them, and what belongs to them and is checked out.

        Or everything that one device has: `holder` is its name, or its hex id; also records that are not on
        this device. What holders still send is merged, and marked as late. Raises RelayUnreachable,
        UnknownType, ValidationError.
        """
        return self._run(lambda: self._inner.break_checkouts(type, ids, holder=holder, space=space))

    def checkouts(self, space: str | None = None) -> list[Checkout]:
        """Who has which record, as far as this device knows, its own first; also without a network.

        What was checked out here stays in the list until it is checked in, whatever became of it.
        """
        return self._run(lambda: self._inner.checkouts(space))


class CheckoutBlock(BlockingContext[AsyncCheckoutBlock]):
    """What `Device.checkout` gives: `results` per record, `granted` and `refused` of them.

    `lost` are those that another device got while the block lasted, because they had run out, were broken, or
    forgotten by a relay; it is as of the last renewal.
    """

    @property
    def results(self) -> list[CheckoutResult]:
        return self._read(lambda: self._inner.results)

    @property
    def checked_in(self) -> list[CheckinResult]:
        """After the block."""
        return self._read(lambda: self._inner.checked_in)

    @property
    def lost(self) -> list[CheckoutResult]:
        return self._read(lambda: self._inner.lost)

    @property
    def granted(self) -> list[CheckoutResult]:
        return self._read(lambda: self._inner.granted)

    @property
    def refused(self) -> list[CheckoutResult]:
        return self._read(lambda: self._inner.refused)
