"""A record as a CRDT: its writes, its document, and the pure functions that edit and read it.

Import from the modules: `writes` and `document` (the CRDT), `update_check` (what a peer may send),
`changes` and `editing` (from wishes to writes), `view` and `conflicts` (from writes to values).
"""
