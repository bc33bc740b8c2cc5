"""The command line: `crdt-sync`.

A thin shell over `crdt_sync_client.Device`, one module per group of commands. Three rules hold in all of it:

- Standard output carries the answer and nothing else: a table for people, one line of JSON with `--json`.
  Progress, notes and errors go to standard error.
- Exit codes and the keys of the JSON are a contract (`failures.EXIT_CODES`, `docs/cli.md`); texts are not.
- A secret is never an argument that has to be typed: passphrases come from the keychain, a file, the
  environment or a hidden prompt.

Modules here import only click and the standard library at the top. What opens a store or a socket is imported
when a command runs, so that `--help` and shell completion answer at once.
"""
