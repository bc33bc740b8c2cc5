"""The relay: stores, orders and forwards encrypted envelopes, and can read none."""
