"""HAProxy as a mesh pair.

It cannot read URI names of a certificate, so it authorizes by common name. It logs to its standard output, which is
the log file. Its trace headers are made as cheaply as its language allows.
"""

import subprocess

from . import certificates as identity
from .pair import ALLOWED_PATHS, APP, APP_HTTP2, CANARY_HEADER, CANARY_VALUE, METHODS, PLAIN, Pair, Ports, Side

LOG_FORMAT = (
    '{"time":"%tr","client":"%ci:%cp","method":"%HM","path":"%HP","status":%ST,"bytes":%B,"duration_ms":%Ta,'
    '"upstream":"%si:%sp","flags":"%tsc","request_id":"%[var(txn.request_id)]","trace":"%[var(txn.trace)]","peer":"%[var(txn.peer)]"}'
)
TCP_LOG_FORMAT = (
    '{"time":"%t","client":"%ci:%cp","bytes_sent":%B,"bytes_received":%U,"duration_ms":%Tt,"upstream":"%si:%sp","flags":"%ts"}'
)
COUNTER = r'^haproxy_frontend_http_requests_total\{proxy="(?:outbound|mesh|mesh_canary|mesh_http2)"\} (\S+)'


def version(tools):
    """Its version line."""
    text = subprocess.run([tools["haproxy"], "-v"], capture_output=True, text=True, check=True).stdout
    return text.split()[2]


def make(tools, folder, certificates, backend):
    """A pair that is ready to start."""
    folder.mkdir()
    ports = Ports()
    sides = []
    for role, text, metrics in (
        ("outbound", _outbound(ports, certificates, backend), ports.metrics_outbound),
        ("inbound", _inbound(ports, certificates, backend), ports.metrics_inbound),
    ):
        config, log = folder / f"{role}.cfg", folder / f"{role}.log"
        config.write_text(_common(metrics) + text)
        sides.append(Side([tools["haproxy"], "-f", str(config), "-db"], log, metrics, "/metrics", COUNTER, log))
    return Pair("haproxy", ports, *sides, mesh_alpn="h2")


def _common(metrics):
    return f"""
global
  nbthread 1
  maxconn 7000
  tune.h2.max-concurrent-streams 1000
  ssl-default-bind-options ssl-min-ver TLSv1.3
  ssl-default-server-options ssl-min-ver TLSv1.3
defaults
  log stdout format raw local0
  mode http
  timeout client 1h
  timeout server 1h
  timeout connect 5s
  timeout http-keep-alive 1h
  http-reuse always
  retries 2
  balance leastconn
frontend metrics
  bind 127.0.0.1:{metrics}
  no log
  http-request use-service prometheus-exporter if {{ path /metrics }}
"""


def _server(port, certificates, account, more=""):
    return (f"server peer 127.0.0.1:{port} ssl verify required ca-file {certificates.root} "
            f"crt {certificates.both(identity.CALLER)} sni str({identity.server_name(account)}) {more}")


def _outbound(ports, certificates, backend):
    return f"""
frontend outbound
  bind 127.0.0.1:{ports.http} backlog 4096
  log-format '{LOG_FORMAT}'
  option forwardfor
  acl host_app hdr(host) -m str {APP}
  acl host_http2 hdr(host) -m str {APP_HTTP2}
  acl host_plain hdr(host) -m str {PLAIN}
  acl canary_path path_beg {ALLOWED_PATHS}
  acl canary_header hdr({CANARY_HEADER}) -m str {CANARY_VALUE}
  http-request set-header x-request-id %[uuid()] unless {{ req.hdr(x-request-id) -m found }}
  http-request set-header traceparent 00-%[rand,hex,lower]%[rand,hex,lower]-%[rand,hex,lower]-00 unless {{ req.hdr(traceparent) -m found }}
  http-request set-var(txn.request_id) req.hdr(x-request-id)
  http-request set-var(txn.trace) req.hdr(traceparent)
  http-request set-header x-forwarded-proto http
  use_backend canary if host_app canary_path canary_header
  use_backend app if host_app
  use_backend http2 if host_http2
  use_backend plain if host_plain
  http-request deny deny_status 404 unless host_app or host_http2 or host_plain
backend app
  {_server(ports.mesh, certificates, identity.CALLEE, "alpn h2")}
backend canary
  {_server(ports.mesh_canary, certificates, identity.CANARY, "alpn h2")}
backend http2
  {_server(ports.mesh_http2, certificates, identity.CALLEE, "alpn h2")}
backend plain
  server app 127.0.0.1:{backend.stable}
listen bulk
  mode tcp
  bind 127.0.0.1:{ports.bulk}
  log-format '{TCP_LOG_FORMAT}'
  {_server(ports.mesh_bulk, certificates, identity.CALLEE)}
listen echo
  mode tcp
  bind 127.0.0.1:{ports.echo} backlog 4096
  log-format '{TCP_LOG_FORMAT}'
  {_server(ports.mesh_echo, certificates, identity.CALLEE)}
"""


def _inbound(ports, certificates, backend):
    http = "".join(
        _mesh(name, port, certificates, account, _HTTP_RULES + f"  server app 127.0.0.1:{application} {more}\n")
        for name, port, account, application, more in (
            ("mesh", ports.mesh, identity.CALLEE, backend.stable, ""),
            ("mesh_canary", ports.mesh_canary, identity.CANARY, backend.canary, ""),
            ("mesh_http2", ports.mesh_http2, identity.CALLEE, backend.http2, "proto h2"),
        )
    )
    tcp = "".join(
        _mesh(name, port, certificates, identity.CALLEE, _TCP_RULES + f"  server app 127.0.0.1:{application}\n")
        for name, port, application in (
            ("mesh_bulk", ports.mesh_bulk, backend.bulk),
            ("mesh_echo", ports.mesh_echo, backend.stable),
        )
    )
    return http + tcp


def _mesh(name, port, certificates, account, rules):
    protocols = "" if "mode tcp" in rules else "alpn h2"
    return (f"listen {name}\n  bind 127.0.0.1:{port} backlog 4096 ssl crt {certificates.both(account)} "
            f"ca-file {certificates.root} verify required {protocols}\n{rules}")


_HTTP_RULES = f"""  log-format '{LOG_FORMAT}'
  option forwardfor
  http-request set-var(txn.request_id) req.hdr(x-request-id)
  http-request set-var(txn.trace) req.hdr(traceparent)
  http-request set-var(txn.peer) ssl_c_s_dn(CN)
  acl caller var(txn.peer) -m str {identity.CALLER}
  acl allowed_method method {" ".join(METHODS)}
  acl allowed_path path_beg {ALLOWED_PATHS}
  http-request deny deny_status 403 unless caller allowed_method allowed_path
"""

_TCP_RULES = f"""  mode tcp
  log-format '{TCP_LOG_FORMAT}'
  tcp-request content reject unless {{ ssl_c_s_dn(CN) -m str {identity.CALLER} }}
"""
