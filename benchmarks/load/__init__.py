"""A load generator for a relay, in a process of its own: `python benchmarks/load/run.py`."""
