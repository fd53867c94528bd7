"""Proves, by behaviour seen from outside, that a running pair has all the features on that its figures claim."""

import http.client
import re
import socket
import time

from . import certificates as identity
from .pair import APP, CANARY_HEADER, CANARY_VALUE
from .ports import ADDRESS
from .process import wait_until

TRACEPARENT = re.compile("00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
# Envoy writes its log once a second at most; the others sooner.
LOG_PATIENCE = 15.0


class ProofError(RuntimeError):
    """A feature that is off, or does not do what it says."""


def prove(pair, certificates):
    """Checks every feature. Returns what was seen, one line each; raises ProofError at the first that fails."""
    return [
        _routing(pair),
        _authorization(pair),
        _trace(pair),
        _mutual_tls(pair, certificates),
        _log_and_metrics(pair),
    ]


def settle_logs(pair):
    """Waits until the access logs have stopped growing, so that what comes next starts from a known state."""
    wait_until(_Settled(pair), f"{pair.name}: access logs settle", LOG_PATIENCE)


def require_log_lines(pair, roles, requests, in_flight):
    """The access logs hold one line for each of the `requests` that the client counted, and few more.

    When the client stops, each request in flight may have had an answer that it no longer counts, and a successor.
    """
    for role in roles:
        wait_until(lambda role=role: pair.log_lines(role) >= requests,
                   f"{pair.name} {role}: {requests} lines in the access log", LOG_PATIENCE)
        lines = pair.log_lines(role)
        if lines > requests + 2 * in_flight:
            raise ProofError(f"{pair.name} {role}: {lines} log lines for {requests} requests, {in_flight} in flight")


def _get(pair, path, host=APP, headers=None):
    connection = http.client.HTTPConnection(ADDRESS, pair.ports.http, timeout=10)
    try:
        connection.request("GET", path, headers={"Host": host, **(headers or {})})
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    finally:
        connection.close()


def _expect(pair, what, got, wanted):
    if got != wanted:
        raise ProofError(f"{pair.name}: {what}: got {got!r}, expected {wanted!r}")


def _routing(pair):
    canary = {CANARY_HEADER: CANARY_VALUE}
    _expect(pair, "default route", _get(pair, "/open/version"), (200, "stable"))
    _expect(pair, "route by path and header", _get(pair, "/open/version", headers=canary), (200, "canary"))
    return "requests are routed by path and header"


def _authorization(pair):
    _expect(pair, "denied path", _get(pair, "/denied")[0], 403)
    connection = http.client.HTTPConnection(ADDRESS, pair.ports.http, timeout=10)
    connection.request("DELETE", "/open/64", headers={"Host": APP})
    _expect(pair, "denied method", connection.getresponse().status, 403)
    connection.close()
    return "a path and a method outside the policy got 403"


def _trace(pair):
    parent = f"00-{TRACE_ID}-b7ad6b7169203331-00"
    status, body = _get(pair, "/open/headers")
    parts = body.split(" ")
    _expect(pair, "headers seen by the application", (status, len(parts)), (200, 2))
    _expect(pair, "traceparent of W3C form", bool(TRACEPARENT.fullmatch(parts[0])), True)
    _expect(pair, "request id present", bool(parts[1]), True)
    _, continued = _get(pair, "/open/headers", headers={"traceparent": parent})
    _expect(pair, "trace id kept", continued.split("-")[1:2], [TRACE_ID])
    return "the application saw a traceparent and a request id, and a caller's trace id was kept"


def _mutual_tls(pair, certificates):
    _expect(pair, "peer with the right certificate", _is_served(pair, certificates, identity.CALLER), True)
    _expect(pair, "peer without a certificate served", _is_served(pair, certificates, None), False)
    _expect(pair, "peer of another root served", _is_served(pair, certificates, identity.STRANGER), False)
    return "the inbound proxy refuses a peer without a certificate, and one of another root"


def _is_served(pair, certificates, account):
    """Whether the inbound proxy keeps the connection of a peer that shows the certificate of `account`, or none.

    In TLS 1.3 the client's handshake ends before the server has judged, so a refusal shows at the first read; a served
    HTTP/2 peer reads SETTINGS, and one of whom a hello is awaited reads nothing until the time is over.
    """
    context = identity.client_context(certificates, account, pair.mesh_alpn)
    try:
        with socket.create_connection((ADDRESS, pair.ports.mesh), 5) as plain:
            with context.wrap_socket(plain, server_hostname=identity.server_name(identity.CALLEE)) as secure:
                secure.settimeout(1.0)
                return bool(secure.recv(1))
    except TimeoutError:
        return True
    except OSError:
        return False


def _log_and_metrics(pair):
    before = {role: pair.requests_counted(role) for role in pair.sides}
    settle_logs(pair)
    pair.forget_logs()
    for _ in range(10):
        _expect(pair, "request", _get(pair, "/open/64")[0], 200)
    require_log_lines(pair, pair.sides, 10, 0)
    for role in pair.sides:
        wait_until(lambda role=role: pair.requests_counted(role) - before[role] >= 10,
                   f"{pair.name} {role}: metrics count 10 requests", LOG_PATIENCE)
    return "ten requests made ten log lines on either side, and the metrics counted them"


class _Settled:
    """Whether the logs have not grown for longer than the slowest writer waits."""

    def __init__(self, pair):
        self._pair, self._lines, self._since = pair, None, 0.0

    def __call__(self):
        lines = [self._pair.log_lines(role) for role in self._pair.sides]
        if lines != self._lines:
            self._lines, self._since = lines, time.monotonic()
        return time.monotonic() - self._since > 1.5
