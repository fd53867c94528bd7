"""The load clients, all on the applications' core: wrk, h2load, iperf3, and plain sockets for idle connections."""

import json
import re
import socket
import time
from dataclasses import dataclass

from .backend import APPLICATION_CORE
from .ports import ADDRESS
from .process import run_on


@dataclass
class Load:
    """What a client saw: `units` done (requests, connections or GB), in how many seconds, with how many errors."""

    units: float
    seconds: float
    errors: int = 0


def http1(tools, url, host, connections, seconds, close=False):
    """HTTP/1.1 as fast as it goes. With `close`, every request has a connection of its own."""
    headers = ["-H", f"Host: {host}", *(["-H", "Connection: close"] if close else [])]
    # A busy machine may halt a proxy for longer than wrk's two seconds; that is noise, not a fault.
    text = run_on(APPLICATION_CORE, [tools["wrk"], "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "20s",
                                     *headers, url], seconds + 30)
    found = re.search(r"(\d+) requests in ([\d.]+)(m?s)", text)
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    broken = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    errors = (int(refused[1]) if refused else 0) + (sum(map(int, broken.groups())) if broken else 0)
    scale = 1000 if found[3] == "ms" else 1
    return Load(int(found[1]), float(found[2]) / scale, errors)


def http2(tools, url, host, connections, streams, seconds):
    """HTTP/2 by prior knowledge as fast as it goes."""
    text = run_on(APPLICATION_CORE, [tools["h2load"], f"-c{connections}", f"-m{streams}", "-D", str(seconds),
                                     "-H", f":authority: {host}", url], seconds + 30)
    return _h2load(text, seconds)


def paced(port, host, path, connections, requests_per_second, seconds):
    """HTTP/1.1 at a fixed, even rate over `connections` in turn. Returns the sorted latencies in microseconds.

    h2load sends its paced requests in bursts of one per connection, which measures queues; this sends them one by one.
    A request whose turn passed while the one before it was under way counts from its turn, so no wait is left out.
    """
    opened = [socket.create_connection((ADDRESS, port), 10) for _ in range(connections)]
    request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    latencies, interval = [], 1 / requests_per_second
    try:
        for connection in opened:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _exchange(connection, request)  # not counted: opens the way
        start = time.perf_counter()
        for turn in range(int(seconds * requests_per_second)):
            due = begin = start + turn * interval
            early = due - time.perf_counter()
            if early > 0:
                time.sleep(early)
                begin = time.perf_counter()  # the timer's own lateness is not the proxy's
            _exchange(opened[turn % connections], request)
            latencies.append(round((time.perf_counter() - begin) * 1e6))
    finally:
        for connection in opened:
            connection.close()
    return sorted(latencies)


def _exchange(connection, request):
    connection.sendall(request)
    answer = connection.recv(65536)
    head, _, body = answer.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"got {answer[:60]!r}")
    length = int(re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)[1])
    while len(body) < length:
        more = connection.recv(65536)
        if not more:
            raise RuntimeError("an answer was cut short")
        body += more


def _h2load(text, seconds):
    done, failed = (int(re.search(rf"(\d+) {word}", text)[1]) for word in ("done", "failed"))
    refused = sum(map(int, re.search(r"status codes: \d+ 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", text).groups()))
    return Load(done, seconds, failed + refused)


def bulk(tools, port, seconds):
    """Bytes in one direction over four connections; the unit is the GB of 10^9 bytes."""
    text = run_on(APPLICATION_CORE, [tools["iperf3"], "-c", ADDRESS, "-p", str(port), "-t", str(seconds), "-P4", "-J"],
                  seconds + 30)
    received = json.loads(text)["end"]["sum_received"]
    return Load(received["bytes"] / 1e9, received["seconds"])


def handshakes(context, port, server_name, seconds):
    """Full TLS handshakes one after another; no session is ever offered again."""
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        with socket.create_connection((ADDRESS, port), 10) as plain:
            with context.wrap_socket(plain, server_hostname=server_name) as secure:
                # In TLS 1.3 the client is ready first: what the server sends at the end shows that it is, too.
                secure.shutdown(socket.SHUT_WR)
                while secure.recv(65536):
                    pass
        count += 1
    return Load(count, time.perf_counter() - start)


class IdleConnections:
    """Connections that have each done one request and now wait."""

    def __init__(self, port, host, path, count):
        self._sockets = []
        request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
        try:
            for _ in range(count):
                connection = socket.create_connection((ADDRESS, port), 10)
                self._sockets.append(connection)
                _exchange(connection, request)
        except OSError as error:
            opened = len(self._sockets)
            self.close()
            raise RuntimeError(f"only {opened} of {count} idle connections: {error}") from error

    def close(self):
        """Closes them all."""
        while self._sockets:
            self._sockets.pop().close()
