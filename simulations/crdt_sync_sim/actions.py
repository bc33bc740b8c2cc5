"""The actions that an event of a scenario may name, and the arguments of each.

This table is all there is to the language of events: the reader checks against it, `run` looks its methods
up by these names, and the README prints it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal[
    "device", "node", "nodes", "groups", "record", "number", "seconds", "text", "values", "value",
    "elements", "counts", "fields", "share", "point", "newcomer", "role", "records",
    "truth",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Argument:
    kind: Kind
    required: bool = True


@dataclass(frozen=True, slots=True)
class ActionSpec:
    """`what` is for people. `not_yet` says why an action that has its place here cannot be used so far."""

    what: str
    arguments: dict[str, Argument]
    not_yet: str = ""


_FOR: Final = Argument("seconds", required=False)
_DEVICE: Final = Argument("device")
_NODE: Final = Argument("node")
_RECORD: Final = Argument("record")
_PRIORITY: Final = Argument("number", required=False)
_LATER: Final = "this version of the product does not have it"

EDIT_PARTS: Final = ("set", "add", "remove", "count", "clear")
"""The ways in which an edit changes fields."""

ACTIONS: Final[dict[str, ActionSpec]] = {
    # Work of people
    "edit": ActionSpec(
        "write fields, add and remove elements of sets, count counters up or down, clear fields and rows",
        {
            "device": _DEVICE,
            "record": _RECORD,
            "set": Argument("values", required=False),
            "add": Argument("elements", required=False),
            "remove": Argument("elements", required=False),
            "count": Argument("counts", required=False),
            "clear": Argument("fields", required=False),
            "priority": _PRIORITY,
        },
    ),
    "together": ActionSpec(
        "write the same fields of several records in one transaction",
        {
            "device": _DEVICE,
            "records": Argument("records"),
            "set": Argument("values"),
            "priority": _PRIORITY,
        },
    ),
    "create": ActionSpec(
        "make a record; `record` names it for later events, `under` the one it belongs to",
        {
            "device": _DEVICE,
            "record": Argument("text"),
            "type": Argument("text"),
            "set": Argument("values"),
            "under": Argument("record", required=False),
            "priority": _PRIORITY,
        },
    ),
    "delete": ActionSpec("delete a record", {"device": _DEVICE, "record": _RECORD}),
    "restore": ActionSpec("undo a delete", {"device": _DEVICE, "record": _RECORD}),
    "resolve": ActionSpec(
        "settle an open conflict: give `keep` (mine, theirs) or `value`",
        {
            "device": _DEVICE,
            "record": _RECORD,
            "field": Argument("text"),
            "keep": Argument("text", required=False),
            "value": Argument("value", required=False),
        },
    ),
    "check": ActionSpec(
        "see what a device shows at this time, whether the record is an orphan or absent, how many records"
        " wait to be sent or have `failed` to be, and the code of the `problem` that keeps it from syncing,"
        " or none",
        {
            "device": _DEVICE,
            "record": Argument("record", required=False),
            "shows": Argument("values", required=False),
            "orphaned": Argument("truth", required=False),
            "absent": Argument("truth", required=False),
            "pending": Argument("number", required=False),
            "failed": Argument("number", required=False),
            "problem": Argument("text", required=False),
        },
    ),
    "join": ActionSpec(
        "an admin, `by` if it says so, invites a device, new or wiped, and its owner lets it join until it"
        " has; `role`: as before",
        {
            "device": Argument("newcomer"),
            "role": Argument("role", required=False),
            "by": Argument("device", required=False),
        },
    ),
    "schema": ActionSpec(
        "an admin publishes a version of a record type, one of the scenario's `versions`",
        {"device": _DEVICE, "type": Argument("text"), "version": Argument("number")},
    ),
    "sync": ActionSpec(
        "someone asks the app to connect now, not when its backoff is over", {"device": _DEVICE}
    ),
    "clear_cache": ActionSpec(
        "a device lets go of all records without unsent work, and fetches them anew", {"device": _DEVICE}
    ),
    "scope": ActionSpec(
        "a device keeps only those records of a type whose fields have these values; without `where` all",
        {"device": _DEVICE, "type": Argument("text"), "where": Argument("values", required=False)},
    ),
    "pick": ActionSpec(
        "a device keeps a record, and what belongs to it, in any case", {"device": _DEVICE, "record": _RECORD}
    ),
    "unpick": ActionSpec("a device keeps it only if `scope` says so", {"device": _DEVICE, "record": _RECORD}),
    "open": ActionSpec(
        "someone opens a record; it is fetched if it is not on the device",
        {"device": _DEVICE, "record": _RECORD},
    ),
    "retry": ActionSpec("someone tries again what the relay refused of a device", {"device": _DEVICE}),
    "discard": ActionSpec(
        "someone gives up what is unsent of a record", {"device": _DEVICE, "record": _RECORD}
    ),
    "clean_up": ActionSpec("a device lets go of records that are closed or deleted", {"device": _DEVICE}),
    # The network
    "partition": ActionSpec(
        "cut every link between the groups; nodes in no group keep theirs",
        {"groups": Argument("groups"), "for_s": _FOR},
    ),
    "cut": ActionSpec("cut one direction", {"from": _NODE, "to": _NODE, "for_s": _FOR}),
    "heal": ActionSpec("mend everything that is cut", {}),
    "offline": ActionSpec("cut a device off the relay", {"device": _DEVICE, "for_s": _FOR}),
    "link": ActionSpec(
        "change the link of a device, both ways",
        {
            "device": _DEVICE,
            "loss": Argument("number", required=False),
            "delay_ms": Argument("number", required=False),
            "jitter_ms": Argument("number", required=False),
            "kbit_per_s": Argument("number", required=False),
            "corruption": Argument("number", required=False),
        },
    ),
    "mischief": ActionSpec(
        "a hostile relay doubles, swaps and replays messages; shares of all messages",
        {
            "duplicate": Argument("number", required=False),
            "reorder": Argument("number", required=False),
            "replay": Argument("number", required=False),
            "for_s": _FOR,
        },
    ),
    # The product's own code
    "rare": ActionSpec(
        "a rare point of the product's code fires, in a share of the times it is asked",
        {"point": Argument("point"), "share": Argument("share", required=False), "for_s": _FOR},
    ),
    # Nodes
    "crash": ActionSpec("the process dies and starts again", {"node": _NODE, "for_s": _FOR}),
    "power_cut": ActionSpec("power goes and comes back", {"node": _NODE, "for_s": _FOR}),
    "pause": ActionSpec("the process stands still", {"node": _NODE, "for_s": Argument("seconds")}),
    "clock": ActionSpec(
        "set how far a wall clock is off, or how fast it drifts",
        {
            "node": _NODE,
            "offset_s": Argument("number", required=False),
            "drift_ppm": Argument("number", required=False),
        },
    ),
    "backup": ActionSpec("copy the storage of a node", {"node": _NODE}),
    "restore_backup": ActionSpec("put the last copy in place; what came after is gone", {"node": _NODE}),
    "wipe": ActionSpec("a node loses its storage; a device comes back by `join`", {"node": _NODE}),
    "version": ActionSpec(
        "a device gets an app that speaks another version of the protocol; this one is `upgrade`",
        {"device": _DEVICE, "speaks": Argument("number")},
    ),
    "upgrade": ActionSpec("a device gets the app that all others have", {"device": _DEVICE}),
    "disk_full": ActionSpec("no room left", {"node": _NODE, "for_s": _FOR}),
    "shut_out": ActionSpec(
        "the relay's operator shuts a device out, and lets it in again", {"device": _DEVICE, "for_s": _FOR}
    ),
    "refuse": ActionSpec(
        "the relay refuses what a device sends of a record, with a `code`; in the end people try again",
        {"device": _DEVICE, "record": _RECORD, "code": Argument("text", required=False), "for_s": _FOR},
    ),
    # Made by a workload: one random valid operation, drawn from a stream of its own
    "work": ActionSpec(
        "something that people do", {"device": _DEVICE, "draw": Argument("number"), "priority": _PRIORITY}
    ),
    "spoil": ActionSpec(
        "something that people do, and the relay refuses for good",
        {
            "device": _DEVICE,
            "draw": Argument("number"),
            "code": Argument("text"),
            "give_up": Argument("truth"),
        },
    ),
    # Made by a fault, in the same way
    "rescope": ActionSpec(
        "someone changes what the device keeps", {"device": _DEVICE, "draw": Argument("number")}
    ),
    # Places kept
    "revoke": ActionSpec("remove a device from the space", {"device": _DEVICE, "of": _DEVICE}, _LATER),
    "checkout": ActionSpec(
        "a device asks for a record for itself, for so long",
        {"device": _DEVICE, "record": _RECORD, "for_s": _FOR},
    ),
    "checkin": ActionSpec("a device gives a record back", {"device": _DEVICE, "record": _RECORD}),
    "break_checkout": ActionSpec(
        "an admin frees a record, whoever has it", {"device": _DEVICE, "record": _RECORD}
    ),
    "lend": ActionSpec(
        "a device checks some records out, in, or breaks a checkout, as drawn",
        {"device": _DEVICE, "draw": Argument("number")},
    ),
}
