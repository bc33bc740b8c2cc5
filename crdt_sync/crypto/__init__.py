"""Keys, envelopes, chains: what is signed and encrypted, and how it is checked."""
