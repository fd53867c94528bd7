"""The cases: what work each one makes a pair do, and in which unit its cost is counted."""

from dataclasses import dataclass
from typing import Callable

from . import load
from .pair import APP, APP_HTTP2, PLAIN

BODY_64, BODY_1K = "/open/64", "/open/1k"
PACED_RATE, PACED_CONNECTIONS = 1000, 16
IDLE_CONNECTIONS = 5000
# At the end each of 16 connections may have an answer that wrk no longer counts, and its successor a request.
CLOSING_IN_FLIGHT = 32
PER_REQUEST, PER_CONNECTION, PER_GIGABYTE = "µs CPU/request", "µs CPU/connection", "CPU-s/GB"


@dataclass(frozen=True)
class CpuCase:
    """A case whose cost is CPU time per unit of work."""

    name: str
    unit: str
    meaning: str
    # (tools, pair, seconds) -> Load
    work: Callable
    # Multiplies CPU seconds per unit of work into `unit`.
    scale: float = 1e6
    # Requests that may be under way when the client stops; None when work is not counted in requests or connections.
    in_flight: int | None = None
    # Whether the inbound proxy takes part.
    both_sides: bool = True


def _http1(connections, path, host=APP, close=False):
    return lambda tools, pair, seconds: load.http1(tools, pair.url(path), host, connections, seconds, close)


def _http2(connections, streams):
    return lambda tools, pair, seconds: load.http2(tools, pair.url(BODY_64), APP_HTTP2, connections, streams, seconds)


def _bulk(tools, pair, seconds):
    return load.bulk(tools, pair.ports.bulk, seconds)


def _handshakes(tools, pair, seconds):
    url = f"http://127.0.0.1:{pair.ports.echo}{BODY_64}"
    return load.http1(tools, url, APP, 16, seconds, close=True)


CPU_CASES = [
    CpuCase("h1-32", PER_REQUEST, "HTTP/1.1 in, 32 connections, 64-byte body, through the pair",
            _http1(32, BODY_64), in_flight=32),
    CpuCase("h1-256", PER_REQUEST, "HTTP/1.1 in, 256 connections, 1 KiB body, through the pair",
            _http1(256, BODY_1K), in_flight=256),
    CpuCase("h2", PER_REQUEST, "HTTP/2 in and out, 8 connections of 32 streams, through the pair",
            _http2(8, 32), in_flight=256),
    CpuCase("h1-one-hop", PER_REQUEST, "HTTP/1.1, 32 connections, the outbound proxy alone, plaintext to the application",
            _http1(32, BODY_64, PLAIN), in_flight=32, both_sides=False),
    CpuCase("tcp", PER_GIGABYTE, "opaque bytes in one direction, 4 connections, through the pair", _bulk, scale=1.0),
    CpuCase("connections", PER_CONNECTION, "a new HTTP/1.1 connection for every request, 16 at a time, through the pair",
            _http1(16, BODY_64, close=True), in_flight=CLOSING_IN_FLIGHT),
    CpuCase("handshakes", PER_CONNECTION,
            "a new TCP connection for every exchange, each with a mutual TLS handshake between the proxies",
            _handshakes, in_flight=CLOSING_IN_FLIGHT),
]

LATENCY_CASES = {"latency-p50": 0.50, "latency-p90": 0.90, "latency-p99": 0.99}
LATENCY_UNIT = f"µs added at {PACED_RATE} requests/s"
MEMORY_CASES = {"memory-idle": 0, "memory-5000": IDLE_CONNECTIONS}
MEMORY_UNIT = "MB PSS"


def names():
    """All cases, in the order of the table."""
    return [case.name for case in CPU_CASES] + list(LATENCY_CASES) + list(MEMORY_CASES)


def selected(wanted):
    """The names that `wanted` means: exact names, or a common beginning such as `latency`. All when empty."""
    if not wanted:
        return names()
    chosen = []
    for word in wanted:
        found = [name for name in names() if name == word] or [name for name in names() if name.startswith(word)]
        if not found:
            raise ValueError(f"no case is called {word!r}; there are: {', '.join(names())}")
        chosen += found
    return [name for name in names() if name in chosen]
