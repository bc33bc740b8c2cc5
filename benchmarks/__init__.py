"""Benchmark programs: `python benchmarks/run.py WORKLOAD --json`."""
