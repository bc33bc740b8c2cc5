"""The core of crdt-sync: records, merge rules, schemas, envelopes, membership and protocol.

Everything here is pure: no sockets, files, clocks, threads or randomness of its own. Time comes in as
``now_ms`` and randomness as an ``entropy`` callable, so that the same code runs in the product and in
the simulator.
"""
