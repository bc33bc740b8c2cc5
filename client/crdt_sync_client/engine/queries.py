"""Queries: which records, in which order, how many, from where on.

A page ends with a token that names the last record's place in the order, not its number: pages go on where
they ended, whatever was written in between. A record that moves in the order meanwhile may be seen twice or
not at all; one that stays is seen exactly once.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec

from crdt_sync.errors import ValidationError
from crdt_sync.schemas.model import RecordSchema
from crdt_sync.schemas.suggest import did_you_mean
from crdt_sync_client.engine.checking import check_filter, spec_at
from crdt_sync_client.engine.filters import Filter, Path, filter_of, path_of
from crdt_sync_client.engine.indexes import index_for
from crdt_sync_client.engine.query_sql import NEVER, Sql, condition, joined, key_of_field, literal

QueryState = Literal["synced", "pending", "failed", "conflict", "orphaned"]
Nulls = Literal["first", "last"]

MAX_ORDERS: Final = 8
_MAX_TOKEN: Final = 8_192
_NULLS: Final[Mapping[str, Nulls]] = {" nulls first": "first", " nulls last": "last"}
_WORK: Final = (
    "SELECT record FROM outbox WHERE error {0} NULL UNION ALL SELECT record FROM sealed WHERE error {0} NULL"
)
_STATES: Final[Mapping[str, str]] = {
    "pending": f"no IN ({_WORK.format('IS')})",
    "failed": f"no IN ({_WORK.format('IS NOT')})",
    "conflict": "no IN (SELECT record FROM conflicts WHERE state = 'open')",
}


@dataclass(frozen=True, slots=True)
class Order:
    """By one field. Without `nulls`, records without a value count as the least."""

    field: str | Path
    descending: bool = False
    nulls: Nulls | None = None

    @classmethod
    def parse(cls, text: str) -> Order:
        """`cost`, `-cost`, `cost nulls last`."""
        nulls: Nulls | None = None
        for ending, where in _NULLS.items():
            if text.endswith(ending):
                text, nulls = text.removesuffix(ending), where
        return cls(text.removeprefix("-"), text.startswith("-"), nulls)

    @property
    def nulls_last(self) -> bool:
        return self.descending if self.nulls is None else self.nulls == "last"


Where = Filter | Mapping[Any, Any] | None
OrderBy = str | Order | Sequence[str | Order]


@dataclass(frozen=True, slots=True)
class Query:
    """Records of one type.

    `where` is a condition (see `field`) or a mapping of fields to the values they equal; `order` fields,
    "-field" for descending, "field nulls last"; ties go by id. Without an order, records come in the order
    in which they came to this device. `state`: only records that have unsent work ("pending"), work that
    failed, an open conflict, none of these ("synced"), or a parent that is not there ("orphaned"); of
    several, any. `deleted`: also deleted ones, or "only" those. `fields`: only these in the records' values.
    """

    type: str
    where: Where = None
    order: OrderBy = ()
    limit: int | None = None
    state: QueryState | Sequence[QueryState] = ()
    deleted: bool | Literal["only"] = False
    fields: Sequence[str] | None = None
    space: str | None = None

    @property
    def orders(self) -> tuple[Order, ...]:
        given = (self.order,) if isinstance(self.order, (str, Order)) else tuple(self.order)
        return tuple(Order.parse(each) if isinstance(each, str) else each for each in given)

    @property
    def states(self) -> tuple[str, ...]:
        return (self.state,) if isinstance(self.state, str) else tuple(self.state)


class Prepared:
    """A query that fits its schema, as SQL. Raises ValidationError naming what does not fit."""

    def __init__(self, schema: RecordSchema, query: Query) -> None:
        self.schema = schema
        self.orders = query.orders
        if len(self.orders) > MAX_ORDERS:
            raise ValidationError("order", f"has more than {MAX_ORDERS} fields")
        if query.limit is not None and query.limit < 0:
            raise ValidationError("limit", "must be 0 or more")
        self.limit = query.limit
        self.keys = [_order_key(schema, order) for order in self.orders]
        self.filter = check_filter(schema, filter_of(query.where))
        self.states = query.states
        self.deleted = query.deleted
        self.fields = None if query.fields is None else tuple(query.fields)
        for name in self.fields or ():
            spec_at(schema, (name,))
        self._index = self._choose_index()

    def _choose_index(self) -> str | None:
        if self.deleted or not self.schema.indexes:
            return None
        names = [path_of(order.field) for order in self.orders]
        one_way = len({order.descending for order in self.orders}) < 2 and not any(
            order.nulls_last != order.descending for order in self.orders
        )
        if any(len(name) > 1 for name in names):
            one_way = False
        return index_for(
            self.schema,
            self.filter,
            [name[0] for name in names],
            one_way=one_way,
            limited=self.limit is not None,
        )

    def count(self, space_no: int) -> Sql:
        where = self._where(space_no)
        return Sql(f"SELECT count(*) FROM {self._table} WHERE {where.text}", where.params)

    def select(
        self,
        columns: str,
        space_no: int,
        *,
        limit: int | None,
        offset: int = 0,
        after: str | None = None,
        nulls: bool = False,
    ) -> Sql:
        """The columns, and then the values of the order's keys; from the end of a page on, or all.

        `nulls`: the second part of what comes after, see `parts`.
        """
        where = self._where(space_no)
        if after is not None:
            where = joined(" AND ", [where, self._after(after, nulls=nulls)])
        first = columns.count(",") + 2
        by = []
        for at, order in enumerate(self.orders):
            placed = " NULLS LAST" if order.nulls_last else " NULLS FIRST"
            if order.nulls_last == order.descending:
                placed = ""  # SQLite's own way, for which it can use an index
            by.append(f"{first + at} {'DESC' if order.descending else 'ASC'}{placed}")
        by.append("no" if not self.orders else f"id {'DESC' if self._backwards else 'ASC'}")
        keys = "".join(f", {key.text}" for key in self.keys)
        params = tuple(value for key in self.keys for value in key.params)
        return Sql(
            f"SELECT {columns}{keys} FROM {self._table} WHERE {where.text}"
            f" ORDER BY {', '.join(by)} LIMIT ? OFFSET ?",
            (*params, *where.params, -1 if limit is None else limit, offset),
        )

    @property
    def _table(self) -> str:
        return "records" if self._index is None else f"records INDEXED BY {self._index}"

    @property
    def _backwards(self) -> bool:
        """Ties go the way of the last field, so that one walk through an index gives the order."""
        return self.orders[-1].descending

    def _where(self, space_no: int) -> Sql:
        parts = [Sql("space = ?", (space_no,)), Sql(f"type = {literal(self.schema.type)}")]
        if self.deleted == "only":
            parts.append(Sql("deleted = 1"))
        elif not self.deleted:
            parts.append(Sql("deleted = 0"))
        head = Sql(
            " AND ".join(part.text for part in parts) + " AND json IS NOT NULL",
            tuple(value for part in parts for value in part.params),
        )
        found = [condition(self.filter)]
        if self.states:
            found.append(joined(" OR ", [self._state(name, space_no) for name in self.states]))
        rest = joined(" AND ", found)
        return Sql(f"{head.text} AND {rest.text}", head.params + rest.params)

    def _state(self, name: str, space_no: int) -> Sql:
        if name in _STATES:
            return Sql(_STATES[name])
        if name == "synced":
            return Sql(" AND ".join(f"NOT ({text})" for text in _STATES.values()))
        if name != "orphaned":
            near = did_you_mean(name, [*_STATES, "synced", "orphaned"])
            raise ValidationError("state", f"there is no state {name!r}{near}")
        parent = self.schema.parent
        if parent is None:
            raise ValidationError("state", f"a {self.schema.type} has no parent, so it cannot be orphaned")
        return Sql(
            "deleted = 0 AND parent IS NOT NULL AND parent NOT IN (SELECT p.id FROM records p"
            " WHERE p.space = ? AND p.type = ? AND p.deleted = 0"
            " AND (p.json IS NOT NULL OR p.absent IS NOT NULL))",
            (space_no, parent.type),
        )

    # Pages ------------------------------------------------------------------------------------------

    def token(self, row: Sequence[Any]) -> str:
        """Of a selected row that begins with `no` and `id` and ends with the order's keys."""
        count = len(self.keys)
        place = [*row[len(row) - count :], row[1]] if count else [row[0]]
        raw = self._mark() + msgspec.msgpack.encode(place)
        return base64.urlsafe_b64encode(raw).decode().rstrip("=")

    def parts(self, after: str | None) -> tuple[bool, ...]:
        """What `nulls` is for the selections that together give all that comes after a page.

        Where records without a value come last, these are another selection than the ones before them.
        """
        if after is None or not self.orders or not self.orders[0].nulls_last:
            return (False,)
        return (False,) if self._place(after)[0] is None else (False, True)

    def _mark(self) -> bytes:
        """Tells tokens of one order from those of another."""
        said = [self.schema.type, [(path_of(o.field), o.descending, o.nulls_last) for o in self.orders]]
        return hashlib.sha256(msgspec.msgpack.encode(said)).digest()[:4]

    def _place(self, token: str) -> list[Any]:
        wrong = ValidationError(
            "page", "is no page of this query", hint="use the token as it came, with the same order"
        )
        if not isinstance(token, str) or len(token) > _MAX_TOKEN:
            raise wrong
        try:
            raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
            place = msgspec.msgpack.decode(raw[4:])
        except (binascii.Error, ValueError, msgspec.DecodeError, RecursionError):
            raise wrong from None
        if raw[:4] != self._mark() or not isinstance(place, list) or len(place) != len(self.keys) + 1:
            raise wrong
        if any(not (each is None or type(each) in (int, float, str)) for each in place):
            raise wrong
        if any(type(each) is int and not -(2**63) <= each < 2**63 for each in place):
            raise wrong
        return place

    def _after(self, token: str, *, nulls: bool) -> Sql:
        """What comes after that place in the order; `nulls`: see `parts`."""
        place = self._place(token)
        if not self.keys:
            return Sql("no > ?", (place[0],))
        ways: list[Sql] = []
        equal: list[Sql] = []
        for key, order, value in zip(self.keys, self.orders, place, strict=False):
            ways.append(joined(" AND ", [*equal, _beyond(key, order, value)]))
            equal.append(Sql(f"{key.text} IS ?", (*key.params, value)))
        last = Sql(f"id {'<' if self._backwards else '>'} ?", (place[-1],))
        ways.append(joined(" AND ", [*equal, last]))
        found = joined(" OR ", ways)
        first, key = self.orders[0], self.keys[0]
        if place[0] is None:
            return found
        # The values and what has none, apart: so an index can be entered at the place.
        if nulls:
            return Sql(f"{key.text} IS NULL", key.params) if first.nulls_last else NEVER
        bound = Sql(f"{key.text} {'<=' if first.descending else '>='} ?", (*key.params, place[0]))
        return joined(" AND ", [bound, found])


def _beyond(key: Sql, order: Order, value: Any) -> Sql:
    """Where a key comes after a value, by one field of an order."""
    if value is None:
        return NEVER if order.nulls_last else Sql(f"{key.text} IS NOT NULL", key.params)
    text, params = f"{key.text} {'<' if order.descending else '>'} ?", (*key.params, value)
    if order.nulls_last:
        return Sql(f"{text} OR {key.text} IS NULL", params + key.params)
    return Sql(text, params)


def _order_key(schema: RecordSchema, order: Order) -> Sql:
    path = path_of(order.field)
    spec = spec_at(schema, path)
    name = ".".join(path)
    if order.nulls not in (None, "first", "last"):
        raise ValidationError(name, "nulls come first or last")
    if len(path) % 2 == 0 or spec.shape in ("set", "rows"):
        raise ValidationError(name, "is not one value to order by")
    return key_of_field(schema, path)
