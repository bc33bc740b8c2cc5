"""The device's database: an encrypted SQLite file behind a small port."""
