"""The simulator: the real code of device and relay in virtual time, reproducible from a seed."""
