"""Two apps without asyncio on a real relay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from crdt_sync.errors import RelayRefused, SyncTimeout
from crdt_sync_client import find_schema
from crdt_sync_client.blocking import Device

KEY = bytes(range(32))
TYPE = "work_order"


def test_an_app_without_asyncio_syncs_watches_and_settles_a_conflict(relay: Any, tmp_path: Path) -> None:
    with (
        Device.create(tmp_path / "office.db", name="Office", key=KEY) as office,
        Device.create(tmp_path / "tablet.db", name="Tablet 7", key=KEY) as tablet,
    ):
        office.create_space("Blocking", relay=relay.url, token=relay.setup_token, schemas=[find_schema(TYPE)])
        order = office.create(TYPE, {"title": "Swap bucket", "status": "assigned"})
        office.sync()
        assert tablet.join(office.invite(role="field")).role == "field"
        assert tablet.sync(timeout_s=20).received >= 1
        office.update(TYPE, order.id, {"root_cause": "Pins worn"})
        tablet.update(TYPE, order.id, {"root_cause": "Lip cracked"})
        tablet.sync()
        with tablet.watch_conflicts() as conflicts:
            tablet.connect()
            office.connect()
            opened = conflicts.next(timeout_s=20)
            assert opened.what == "opened"
            tablet.resolve(opened.conflict.id, merge=lambda versions: " and ".join(v.value for v in versions))
            assert conflicts.next(timeout_s=20).what == "closed"
        office.sync(timeout_s=20)
        tablet.sync(timeout_s=20)
        office.sync(timeout_s=20)
        seen = [device.get(TYPE, order.id) for device in (office, tablet)]
        assert [sorted(record["root_cause"].split(" and ")) for record in seen if record] == [
            ["Lip cracked", "Pins worn"]
        ] * 2
        assert next(iter(office.conflict_trail())).state == "closed"


def test_what_the_relay_says_is_raised_as_it_is_with_await(relay: Any, tmp_path: Path) -> None:
    with Device.create(tmp_path / "office.db", name="Office", key=KEY) as office:
        with pytest.raises(RelayRefused):
            office.create_space("Never", relay=relay.url, token="wrong", schemas=[])
        office.create_space("Slow", relay=relay.url, token=relay.setup_token, schemas=[find_schema(TYPE)])
        office.create(TYPE, {"title": "x"})
        with pytest.raises(SyncTimeout):
            office.sync(timeout_s=0.0)
        assert office.sync(timeout_s=20).sent == 1
