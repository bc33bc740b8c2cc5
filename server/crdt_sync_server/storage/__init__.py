"""Where the relay keeps its logs: a port, and its adapter for SQLite."""
