"""What the relay's engine costs: `python benchmarks/relay_writes.py [--json] [--verify]`.

Microseconds of CPU (process time) for one call, medians over rounds: a commit of one push of one envelope, a
commit of one push of 64, a commit of 64 devices with an envelope each, and a tick with nothing to do. The
database is in memory and signatures count as verified, so that what is measured is the engine; `--verify`
verifies them, some 60 µs each.

To compare two versions, run the two in turns with `PYTHONPATH` naming the folders of one or the other.
"""

from __future__ import annotations

import itertools
import json
import os
import sqlite3
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import click

from crdt_sync.crypto.chain import ChainHead
from crdt_sync.crypto.device_keys import DeviceKeys
from crdt_sync.crypto.envelope import Header, parse, seal
from crdt_sync.crypto.space_keys import SpaceKeys
from crdt_sync.ids import Author, Incarnation, OpaqueId
from crdt_sync.membership.authoring import make_genesis
from crdt_sync.protocol.frames import Create, FromDevice, Hello, Mode, Push, auth_message
from crdt_sync.protocol.limits import MAX_ENVELOPE_BYTES
from crdt_sync_server.effects import Arrival, Peer
from crdt_sync_server.engine import RelayEngine
from crdt_sync_server.limits import RelayLimits
from crdt_sync_server.signatures import Claim, verify_here
from crdt_sync_server.storage import sqlite_file
from crdt_sync_server.storage.sqlite import SqliteStorage

CALLS: Final = 200
"""In one round."""
BATCH: Final = 64
RECORDS: Final = 50
PAYLOAD: Final = bytes(60)
"""A write of one field is 60 to 70 bytes."""

_UNHURRIED: Final = RelayLimits(updates_per_s=None, bytes_per_s=None)
"""Time stands still here, so that a rate would be used up for ever."""


class Chain:
    """One life of the founder's device, connected to the relay."""

    def __init__(self, bench: Bench, incarnation: int) -> None:
        self._bench = bench
        self.author = Author(bench.device.device_id, Incarnation(incarnation))
        self.peer = Peer(os.urandom(32))
        self._head = ChainHead.start(bench.space, self.author)

    def hello(self) -> Hello:
        bench = self._bench
        message = auth_message(
            nonce=self.peer.nonce, relay_id=bench.engine.relay_id, space=bench.space,
            party=self.author.device, incarnation=self.author.incarnation, mode=Mode.DEVICE,
        )  # fmt: skip
        return Hello(
            1, Mode.DEVICE, bench.space, self.author.device, self.author.incarnation, 0,
            bench.engine.relay_id, "bench", bench.device.sign(message),
        )  # fmt: skip

    def envelopes(self, count: int) -> list[bytes]:
        """The next links of the chain, each about another record."""
        bench = self._bench
        raws = []
        for _ in range(count):
            sequence = self._head.sequence + 1
            header = Header.for_update(
                space=bench.space, record=OpaqueId((sequence % RECORDS).to_bytes(16, "big")),
                author=self.author, epoch=1, sequence=sequence, prev=self._head.hash,
                members_head=bytes(16), frontier=bytes(16),
            )  # fmt: skip
            raw = seal(
                header, PAYLOAD, key=bench.keys.envelope_key(1), keys=bench.device, nonce=os.urandom(12)
            )
            self._head = ChainHead(sequence, parse(raw, max_bytes=MAX_ENVELOPE_BYTES).hash)
            raws.append(raw)
        return raws


class Bench:
    """A relay's engine with one space and many connections, and the calls that are timed."""

    def __init__(self, verify: Callable[[Sequence[Claim]], list[bool]]) -> None:
        database = sqlite3.connect(":memory:", isolation_level=None)
        sqlite_file.prepare(database, os.urandom)
        self.engine = RelayEngine(
            SqliteStorage(database), token_is_right=lambda _: True, verify=verify, limits=_UNHURRIED
        )
        self._now_ms = 1_772_000_000_000
        self.device = DeviceKeys.generate(os.urandom)
        self.keys = SpaceKeys.generate(os.urandom)
        genesis, self.space = make_genesis(
            self.device, self.keys, space_name="bench", device_name="office", at_ms=self._now_ms,
            entropy=os.urandom,
        )  # fmt: skip

        self._process([(Peer(bytes(32)), Create(1, genesis, "", "bench"))])
        self.chains = [Chain(self, number) for number in range(1, BATCH + 1)]
        self._process([(chain.peer, chain.hello()) for chain in self.chains])

    def _process(self, frames: Sequence[tuple[Peer, FromDevice]]) -> None:
        self._now_ms += 1
        self.engine.process([Arrival(*frame) for frame in frames], self._now_ms)

    def pushes_of_one(self) -> Callable[[], object]:
        chain = self.chains[0]
        pushes = iter([Push([raw]) for raw in chain.envelopes(CALLS)])
        return lambda: self._process([(chain.peer, next(pushes))])

    def pushes_of_many(self) -> Callable[[], object]:
        chain = self.chains[0]
        pushes = iter([Push(chain.envelopes(BATCH)) for _ in range(CALLS)])
        return lambda: self._process([(chain.peer, next(pushes))])

    def many_devices(self) -> Callable[[], object]:
        pushes = {chain.peer: iter(chain.envelopes(CALLS)) for chain in self.chains}
        return lambda: self._process([(peer, Push([next(raws)])) for peer, raws in pushes.items()])

    def idle_tick(self) -> Callable[[], object]:
        """Nothing was written, and every device has everything."""
        for chain in self.chains:
            chain.peer.caught_up = True
        return lambda: self.engine.tick(self._now_ms)


def microseconds(prepare: Callable[[], Callable[[], object]], rounds: int) -> float:
    """The median over rounds of what one call costs; what a round needs is made before its clock runs."""
    costs = []
    for _ in range(rounds):
        call = prepare()
        started = time.process_time()
        for _ in itertools.repeat(None, CALLS):
            call()
        costs.append((time.process_time() - started) / CALLS * 1e6)
    return round(statistics.median(costs), 1)


def measure(rounds: int, *, verify: bool) -> dict[str, Any]:
    """Microseconds of CPU for each call, by name."""
    bench = Bench(verify_here if verify else lambda claims: [True] * len(claims))
    return {
        "idle_tick_us": microseconds(bench.idle_tick, rounds),
        "push_of_one_us": microseconds(bench.pushes_of_one, rounds),
        f"push_of_{BATCH}_us": microseconds(bench.pushes_of_many, rounds),
        f"push_by_{BATCH}_devices_us": microseconds(bench.many_devices, rounds),
    }


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON line.")
@click.option("--verify", is_flag=True, help="Verify signatures too.")
@click.option("--rounds", default=9, show_default=True, help="Rounds, of which the median counts.")
def main(as_json: bool, verify: bool, rounds: int) -> None:
    """What the relay's engine costs, in microseconds of CPU."""
    figures = measure(rounds, verify=verify)
    if as_json:
        click.echo(json.dumps(figures))
    else:
        for name, value in figures.items():
            click.echo(f"{name:24} {value:10.1f}")


if __name__ == "__main__":
    main()
