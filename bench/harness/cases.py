"""The cases: what work each one makes a pair do, and in which unit its cost is counted."""

from dataclasses import dataclass
from typing import Callable

from . import certificates as identity
from . import load
from .certificates import client_context
from .pair import APP, APP_HTTP2, PLAIN
from .ports import ADDRESS

BODY_64, BODY_1K = "/open/64", "/open/1k"
PACED_RATE, PACED_CONNECTIONS = 1000, 16
IDLE_CONNECTIONS = 5000
PER_REQUEST, PER_CONNECTION, PER_HANDSHAKE = "µs CPU/request", "µs CPU/connection", "µs CPU/handshake"
PER_GIGABYTE = "CPU-s/GB"


@dataclass(frozen=True)
class CpuCase:
    """A case whose cost is CPU time per unit of work."""

    name: str
    unit: str
    meaning: str
    # (plan, pair, seconds) -> Load
    work: Callable
    # Multiplies CPU seconds per unit of work into `unit`.
    scale: float = 1e6
    # Requests under way at a time; None when no access log counts this work.
    in_flight: int | None = None
    # The proxies that take part.
    roles: tuple = ("outbound", "inbound")


def _http1(connections, path, host=APP, close=False):
    return lambda plan, pair, seconds: load.http1(plan.tools, pair.url(path), host, connections, seconds, close)


def _http2(connections, streams):
    return lambda plan, pair, seconds: load.http2(plan.tools, pair.url(BODY_64), APP_HTTP2, connections, streams, seconds)


def _bulk(plan, pair, seconds):
    return load.bulk(plan.tools, pair.ports.bulk, seconds)


def _tcp_connections(plan, pair, seconds):
    url = f"http://{ADDRESS}:{pair.ports.echo}{BODY_64}"
    return load.http1(plan.tools, url, APP, 16, seconds, close=True)


def _handshakes(plan, pair, seconds):
    context = client_context(plan.certificates, identity.CALLER, pair.mesh_alpn)
    return load.handshakes(context, pair.ports.mesh, identity.server_name(identity.CALLEE), seconds)


CPU_CASES = [
    CpuCase("h1-32", PER_REQUEST, "HTTP/1.1 in, 32 connections, 64-byte body, through the pair",
            _http1(32, BODY_64), in_flight=32),
    CpuCase("h1-256", PER_REQUEST, "HTTP/1.1 in, 256 connections, 1 KiB body, through the pair",
            _http1(256, BODY_1K), in_flight=256),
    CpuCase("h2", PER_REQUEST, "HTTP/2 in and out, 8 connections of 32 streams, through the pair",
            _http2(8, 32), in_flight=256),
    CpuCase("h1-one-hop", PER_REQUEST, "HTTP/1.1, 32 connections, the outbound proxy alone, plaintext to the application",
            _http1(32, BODY_64, PLAIN), in_flight=32, roles=("outbound",)),
    CpuCase("tcp", PER_GIGABYTE, "opaque bytes in one direction, 4 connections, through the pair", _bulk, scale=1.0),
    CpuCase("connections", PER_CONNECTION, "a new HTTP/1.1 connection for every request, 16 at a time, through the pair",
            _http1(16, BODY_64, close=True), in_flight=16),
    CpuCase("tcp-connections", PER_CONNECTION,
            "a new TCP connection for every exchange, 16 at a time, each with its own TLS connection between the proxies, "
            "resumed where the proxies do so", _tcp_connections, in_flight=16),
    CpuCase("handshakes", PER_HANDSHAKE,
            "full mutual handshakes of one and the same client (OpenSSL, X25519) with the inbound proxy alone",
            _handshakes, roles=("inbound",)),
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
