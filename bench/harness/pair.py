"""What every pair of proxies offers to the cases: the same listeners, logs and metrics, whoever stands behind them.

    client -> outbound proxy (caller's side) == mutual TLS ==> inbound proxy (callee's side) -> application

The outbound proxy's HTTP listener routes by host: `APP` over HTTP/1.1 and `APP_HTTP2` over HTTP/2 through the mesh,
`PLAIN` to the application without a second proxy. Two TCP listeners lead to iperf3 and, as opaque bytes, to nginx.
"""

import os
import re
import urllib.request
from dataclasses import dataclass, field

from .ports import ADDRESS, free_port, is_open
from .process import Daemon, wait_until

PROXY_CORE = 1
APP, APP_HTTP2, PLAIN = "app.default.mesh", "app-http2.default.mesh", "plain.default.mesh"
CANARY_HEADER, CANARY_VALUE = "x-canary", "yes"
# The one path that the policies of all three allow, for the caller's identity and METHODS; all else is 403.
ALLOWED_PATHS, METHODS = "/open/", ("GET", "POST")


@dataclass
class Ports:
    """The ports of one pair."""

    http: int = field(default_factory=free_port)
    bulk: int = field(default_factory=free_port)
    echo: int = field(default_factory=free_port)
    mesh: int = field(default_factory=free_port)
    mesh_canary: int = field(default_factory=free_port)
    mesh_http2: int = field(default_factory=free_port)
    mesh_bulk: int = field(default_factory=free_port)
    mesh_echo: int = field(default_factory=free_port)
    metrics_outbound: int = field(default_factory=free_port)
    metrics_inbound: int = field(default_factory=free_port)


@dataclass
class Side:
    """One proxy of the pair: how to start it, and where its evidence is."""

    command: list
    log: object
    metrics_port: int
    metrics_path: str
    # Finds the value of each counter of finished HTTP requests in the metrics.
    request_counter: str
    output: object
    environment: dict = field(default_factory=dict)


class Pair:
    """A running pair."""

    def __init__(self, name, ports, outbound, inbound, mesh_alpn):
        self.name, self.ports, self.mesh_alpn = name, ports, mesh_alpn
        self.sides = {"outbound": outbound, "inbound": inbound}
        self._daemons = {}

    def start(self):
        """Starts both and waits until both listen."""
        for role in ("inbound", "outbound"):
            side = self.sides[role]
            self._daemons[role] = Daemon(f"{self.name} {role}", side.command, PROXY_CORE, side.output, side.environment)
        for port in (self.ports.mesh, self.ports.http, self.ports.metrics_inbound, self.ports.metrics_outbound):
            wait_until(lambda port=port: is_open(port), f"{self.name} on port {port}", watched=self._daemons.values())
        return self

    def stop(self):
        """Ends both, the caller's side first."""
        for role in ("outbound", "inbound"):
            if role in self._daemons:
                self._daemons.pop(role).stop()

    def check_alive(self):
        """Fails when one of them has ended."""
        for daemon in self._daemons.values():
            daemon.check_alive()

    def process_ids(self):
        """All processes, by role."""
        return {role: daemon.tree() for role, daemon in self._daemons.items()}

    def cpu_seconds(self):
        """CPU time so far, by role."""
        return {role: daemon.cpu_seconds() for role, daemon in self._daemons.items()}

    def memory_megabytes(self):
        """Proportional set size now, by role."""
        return {role: daemon.memory_megabytes() for role, daemon in self._daemons.items()}

    def url(self, path):
        """A URL of the outbound HTTP listener."""
        return f"http://{ADDRESS}:{self.ports.http}{path}"

    def log_lines(self, role):
        """Lines in the access log since the last `forget_logs`."""
        count = 0
        with open(self.sides[role].log, "rb", buffering=0) as file:
            try:
                file.seek(0, os.SEEK_DATA)
            except OSError:
                return 0  # nothing but the hole that `forget_logs` left before a writer that does not append
            while block := file.read(1 << 20):
                count += block.count(b"\n")
        return count

    def forget_logs(self):
        """Empties the access logs, so that a long run does not fill the disk."""
        for side in self.sides.values():
            with open(side.log, "r+b") as file:
                file.truncate(0)

    def requests_counted(self, role):
        """Finished requests by the proxy's own metrics."""
        side = self.sides[role]
        url = f"http://{ADDRESS}:{side.metrics_port}{side.metrics_path}"
        with urllib.request.urlopen(url, timeout=5) as answer:
            text = answer.read().decode()
        return sum(float(value) for value in re.findall(side.request_counter, text, re.MULTILINE))
