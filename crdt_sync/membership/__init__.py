"""Who is in a space: its signed log, invites and joining."""
