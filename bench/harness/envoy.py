"""Envoy as a mesh pair, configured as a mesh configures it: SPIFFE names on both sides, RBAC, JSON access log, statistics,
request id, and its OpenTelemetry tracer, which writes the W3C header and here samples nothing.
"""

import json
import subprocess

from . import certificates as identity
from .pair import ALLOWED_PATHS, APP, APP_HTTP2, CANARY_HEADER, CANARY_VALUE, METHODS, PLAIN, Pair, Ports, Side

TYPE = "type.googleapis.com/envoy."
COUNTER = r'^envoy_http_downstream_rq_completed\{envoy_http_conn_manager_prefix="(?:http|mesh\w*)"\} (\S+)'
NO_LIMITS = {"thresholds": [{"max_connections": 100000, "max_pending_requests": 100000, "max_requests": 100000}]}
TRACER = {
    "provider": {
        "name": "envoy.tracers.opentelemetry",
        "typed_config": {"@type": "type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig", "service_name": "bench",
                         "grpc_service": {"envoy_grpc": {"cluster_name": "collector"}}},
    },
    # No request is sampled, so the collector, which is not there, is never called.
    "random_sampling": {"value": 0},
}


def version(tools):
    """Its version."""
    text = subprocess.run([tools["envoy"], "--version"], capture_output=True, text=True, check=True).stdout
    return text.split("version:")[1].split("/")[1]


def make(tools, folder, certificates, backend):
    """A pair that is ready to start."""
    folder.mkdir()
    ports = Ports()
    sides = []
    for role, metrics, resources in (
        ("outbound", ports.metrics_outbound, _outbound(ports, certificates, backend, folder / "outbound.log")),
        ("inbound", ports.metrics_inbound, _inbound(ports, certificates, backend, folder / "inbound.log")),
    ):
        config = folder / f"{role}.json"
        config.write_text(json.dumps({"admin": {"address": _address(metrics)}, "static_resources": resources}, indent=1))
        command = [tools["envoy"], "-c", str(config), "--concurrency", "1", "--use-dynamic-base-id",
                   "-l", "error", "--file-flush-interval-msec", "1000"]
        sides.append(Side(command, folder / f"{role}.log", metrics, "/stats/prometheus", COUNTER, folder / f"{role}.out"))
    return Pair("envoy", ports, *sides, mesh_alpn="h2")


def _outbound(ports, certificates, backend, log):
    canary = {"prefix": ALLOWED_PATHS, "headers": [{"name": CANARY_HEADER, "string_match": {"exact": CANARY_VALUE}}]}
    hosts = [
        _host(APP, [(canary, "canary"), ({"prefix": "/"}, "app")]),
        _host(APP_HTTP2, [({"prefix": "/"}, "http2")]),
        _host(PLAIN, [({"prefix": "/"}, "plain")]),
    ]

    def client(account, protocols):
        return _client_tls(certificates, account, protocols)

    return {
        "listeners": [
            _listener(ports.http, [_http("http", log, hosts, [])]),
            _listener(ports.bulk, [_tcp("bulk", log)]),
            _listener(ports.echo, [_tcp("echo", log)]),
        ],
        "clusters": [
            _cluster("app", ports.mesh, client(identity.CALLEE, ["h2"]), http2=True),
            _cluster("canary", ports.mesh_canary, client(identity.CANARY, ["h2"]), http2=True),
            _cluster("http2", ports.mesh_http2, client(identity.CALLEE, ["h2"]), http2=True),
            _cluster("plain", backend.stable),
            _cluster("collector", 1),
            _cluster("bulk", ports.mesh_bulk, client(identity.CALLEE, [])),
            _cluster("echo", ports.mesh_echo, client(identity.CALLEE, [])),
        ],
    }


def _inbound(ports, certificates, backend, log):
    def http(name, cluster, account, port):
        return _listener(port, [_http(name, log, [_host("*", [({"prefix": "/"}, cluster)])], [_request_policy()])],
                         _server_tls(certificates, account, ["h2"]))

    def tcp(name, port):
        return _listener(port, [_connection_policy(), _tcp(name, log)], _server_tls(certificates, identity.CALLEE, []))

    return {
        "listeners": [
            http("mesh", "stable", identity.CALLEE, ports.mesh),
            http("mesh_canary", "canary", identity.CANARY, ports.mesh_canary),
            http("mesh_http2", "http2", identity.CALLEE, ports.mesh_http2),
            tcp("bulk", ports.mesh_bulk),
            tcp("echo", ports.mesh_echo),
        ],
        "clusters": [
            _cluster("stable", backend.stable),
            _cluster("canary", backend.canary),
            _cluster("http2", backend.http2, http2=True),
            _cluster("bulk", backend.bulk),
            _cluster("echo", backend.stable),
            _cluster("collector", 1),
        ],
    }


def _address(port):
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _typed(name, kind, **config):
    return {"name": name, "typed_config": {"@type": TYPE + kind, **config}}


def _listener(port, filters, tls=None):
    chain = {"filters": filters, **({"transport_socket": tls} if tls else {})}
    return {"name": f"listener-{port}", "address": _address(port), "filter_chains": [chain], "tcp_backlog_size": 4096}


def _cluster(name, port, tls=None, http2=False):
    cluster = {
        "name": name, "type": "STATIC", "lb_policy": "LEAST_REQUEST", "connect_timeout": "5s",
        "circuit_breakers": NO_LIMITS,
        "load_assignment": {"cluster_name": name,
                            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(port)}}]}]},
    }
    if tls:
        cluster["transport_socket"] = tls
    if http2:
        options = {"explicit_http_config": {"http2_protocol_options": {"max_concurrent_streams": 1000}}}
        kind = {"@type": TYPE + "extensions.upstreams.http.v3.HttpProtocolOptions"}
        cluster["typed_extension_protocol_options"] = {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {**kind, **options}}
    return cluster


def _host(domain, routes):
    retries = {"retry_on": "connect-failure,refused-stream", "num_retries": 2}
    return {"name": domain, "domains": [domain],
            "routes": [{"match": match, "route": {"cluster": cluster, "timeout": "15s", "retry_policy": retries}}
                       for match, cluster in routes]}


def _http(name, log, hosts, policies):
    router = _typed("router", "extensions.filters.http.router.v3.Router")
    return _typed(
        "http", "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix=name, codec_type="AUTO", generate_request_id=True, use_remote_address=True, tracing=TRACER,
        http2_protocol_options={"max_concurrent_streams": 1000}, access_log=[_access_log(log)],
        route_config={"virtual_hosts": hosts}, http_filters=[*policies, router],
    )


def _tcp(cluster, log):
    return _typed("tcp", "extensions.filters.network.tcp_proxy.v3.TcpProxy",
                  stat_prefix=cluster, cluster=cluster, access_log=[_access_log(log)])


def _access_log(path):
    fields = {
        "time": "%START_TIME%", "client": "%DOWNSTREAM_REMOTE_ADDRESS%", "method": "%REQ(:METHOD)%",
        "path": "%REQ(:PATH)%", "status": "%RESPONSE_CODE%", "bytes": "%BYTES_SENT%", "duration_ms": "%DURATION%",
        "upstream": "%UPSTREAM_HOST%", "flags": "%RESPONSE_FLAGS%", "request_id": "%REQ(X-REQUEST-ID)%",
        "trace": "%TRACE_ID%", "peer": "%DOWNSTREAM_PEER_URI_SAN%",
    }
    return _typed("log", "extensions.access_loggers.file.v3.FileAccessLog", path=str(path),
                  log_format={"json_format": fields})


def _caller():
    return [{"authenticated": {"principal_name": {"exact": identity.spiffe_id(identity.CALLER)}}}]


def _request_policy():
    methods = [{"header": {"name": ":method", "string_match": {"exact": method}}} for method in METHODS]
    paths = {"url_path": {"path": {"prefix": ALLOWED_PATHS}}}
    permission = {"and_rules": {"rules": [{"or_rules": {"rules": methods}}, paths]}}
    return _typed("policy", "extensions.filters.http.rbac.v3.RBAC", rules={
        "action": "ALLOW", "policies": {"only-web": {"permissions": [permission], "principals": _caller()}}})


def _connection_policy():
    return _typed("policy", "extensions.filters.network.rbac.v3.RBAC", stat_prefix="policy", rules={
        "action": "ALLOW", "policies": {"only-web": {"permissions": [{"any": True}], "principals": _caller()}}})


def _tls(certificates, account, peer, protocols):
    name = {"san_type": "URI", "matcher": peer}
    return {
        # Without a maximum Envoy's client speaks TLS 1.2 at most.
        # Post-quantum key exchange, as Weft does it; Envoy must be told.
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3",
                       "ecdh_curves": ["X25519MLKEM768", "X25519"]},
        "tls_certificates": [{"certificate_chain": {"filename": str(certificates.chain(account))},
                              "private_key": {"filename": str(certificates.key(account))}}],
        "validation_context": {"trusted_ca": {"filename": str(certificates.root)},
                               "match_typed_subject_alt_names": [name]},
        "alpn_protocols": protocols,
    }


def _client_tls(certificates, account, protocols):
    peer = {"exact": identity.spiffe_id(account)}
    return _typed("tls", "extensions.transport_sockets.tls.v3.UpstreamTlsContext", sni=identity.server_name(account),
                  common_tls_context=_tls(certificates, identity.CALLER, peer, protocols))


def _server_tls(certificates, account, protocols):
    peer = {"prefix": f"spiffe://{identity.TRUST_DOMAIN}/"}
    return _typed("tls", "extensions.transport_sockets.tls.v3.DownstreamTlsContext", require_client_certificate=True,
                  common_tls_context=_tls(certificates, account, peer, protocols))
