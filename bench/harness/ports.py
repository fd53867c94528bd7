"""Finds free loopback ports below the range from which the kernel takes the local ports of outgoing connections."""

import random
import socket

ADDRESS = "127.0.0.1"
LOWEST, HIGHEST = 20_000, 32_000
_given = set()


def free_port():
    """A port nobody listens on now and that this run has not given out before."""
    for _ in range(1000):
        port = random.randrange(LOWEST, HIGHEST)
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind((ADDRESS, port))
            except OSError:
                continue
        _given.add(port)
        return port
    raise RuntimeError(f"no free port between {LOWEST} and {HIGHEST}")


def is_open(port):
    """Whether something accepts connections on `port`."""
    try:
        socket.create_connection((ADDRESS, port), 0.3).close()
    except OSError:
        return False
    return True
