"""`python -m crdt_sync_client.cli`: the command where the script `crdt-sync` is not on the path."""

from .main import main

main()
