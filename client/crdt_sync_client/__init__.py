"""The device: an encrypted local store, its engine, and the library API over both."""
