"""The applications behind the mesh: nginx over HTTP/1.1 and HTTP/2, in a stable and a canary version, and iperf3.

They share core 0 with the load client, so that the proxies have core 1 to themselves.
"""

import os

from .ports import free_port, is_open
from .process import Daemon, wait_until

APPLICATION_CORE = 0
BODY_64, BODY_1K = "0123456789abcdef" * 4, "0123456789abcdef" * 64

# What every path answers. `/denied` would answer too, so that a 403 can only come from a proxy.
LOCATIONS = f"""
    location = /open/64 {{ return 200 "{BODY_64}"; }}
    location = /open/1k {{ return 200 "{BODY_1K}"; }}
    location = /open/headers {{ return 200 "$http_traceparent $http_x_request_id"; }}
    location = /denied {{ return 200 "{BODY_64}"; }}
"""


class Backend:
    """The running applications and their ports."""

    def __init__(self, tools, folder):
        self.stable, self.canary, self.http2, self.bulk = (free_port() for _ in range(4))
        folder.mkdir()
        config = folder / "nginx.conf"
        config.write_text(self._nginx(folder))
        self._daemons = [
            Daemon("nginx", [tools["nginx"], "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(config)],
                   APPLICATION_CORE, folder / "nginx.out"),
            Daemon("iperf3", [tools["iperf3"], "-s", "-B", "127.0.0.1", "-p", str(self.bulk)],
                   APPLICATION_CORE, folder / "iperf3.out"),
        ]
        for port in (self.stable, self.canary, self.http2):
            wait_until(lambda port=port: is_open(port), f"nginx on port {port}", watched=self._daemons)

    def _nginx(self, folder):
        scratch = "".join(f"{kind}_temp_path {folder}/{kind};\n  " for kind in
                          ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        # Run as who starts it; as root nginx would change to a user that cannot read the folder.
        user = "user root;" if os.geteuid() == 0 else ""
        return f"""{user} worker_processes 1; daemon off; pid {folder}/nginx.pid; worker_rlimit_nofile 16384;
events {{ worker_connections 12000; }}
http {{
  access_log off; default_type text/plain; {scratch}
  keepalive_requests 1000000000; keepalive_timeout 3600s; http2_max_concurrent_streams 1000;
  server {{ listen 127.0.0.1:{self.stable} backlog=4096; {LOCATIONS}
    location /open/version {{ return 200 "stable"; }} }}
  server {{ listen 127.0.0.1:{self.canary} backlog=4096; {LOCATIONS}
    location /open/version {{ return 200 "canary"; }} }}
  server {{ listen 127.0.0.1:{self.http2} http2 backlog=4096; {LOCATIONS} }}
}}
"""

    def stop(self):
        """Ends them."""
        for daemon in self._daemons:
            daemon.stop()
