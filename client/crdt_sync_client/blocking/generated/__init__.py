"""The blocking classes; made by `python -m crdt_sync_client.blocking_generator`."""
