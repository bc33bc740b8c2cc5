"""The synchronous device engine: `Engine` and the values it takes and gives."""

from crdt_sync_client.engine.engine import Engine as Engine
from crdt_sync_client.engine.verifying import VerifyMany as VerifyMany
