"""What an operator does with a relay, running or stopped: look at it, back it up, check it."""
