"""One module a workload; each has `async def run(...) -> dict` with the figures of its JSON line."""
