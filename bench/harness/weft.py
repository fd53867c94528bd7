"""Weft as a mesh pair: two agents with identities from files and a static registry."""

import os
import subprocess

from . import certificates as identity
from .pair import ALLOWED_PATHS, APP, APP_HTTP2, CANARY_HEADER, CANARY_VALUE, METHODS, PLAIN, Pair, Ports, Side

COUNTER = r"^weft_requests_total\{.*\} (\S+)"
MESH_FRAMING = "weft-h2/1"


def version(tools):
    """Its version."""
    text = subprocess.run([tools["weft"], "--version"], capture_output=True, text=True, check=True).stdout
    return text.split()[-1]


def make(tools, folder, certificates, backend):
    """A pair that is ready to start."""
    folder.mkdir()
    ports = Ports()
    sides = []
    for role, metrics, text in (
        ("outbound", ports.metrics_outbound, _outbound(ports)),
        ("inbound", ports.metrics_inbound, _inbound(ports, backend)),
    ):
        home = folder / role
        (home / "mesh.d").mkdir(parents=True)
        (home / "mesh.d" / "bench.toml").write_text(_mesh(ports, backend))
        _identities(home / "identity", certificates)
        config, log = home / "weft.toml", home / "access.log"
        config.write_text(_common(home, metrics) + text)
        command = [tools["weft"], "agent", "--config", str(config)]
        sides.append(Side(command, log, metrics, "/metrics", COUNTER, home / "weft.out"))
    return Pair("weft", ports, *sides, mesh_alpn=MESH_FRAMING)


def _identities(folder, certificates):
    folder.mkdir()
    for account in (identity.CALLER, identity.CALLEE, identity.CANARY):
        (folder / f"{account}.pem").write_text(certificates.chain(account).read_text())
        key = folder / f"{account}.key"
        key.write_text(certificates.key(account).read_text())
        key.chmod(0o600)
    (folder / "bundle.pem").write_text(certificates.root.read_text())


def _common(home, metrics):
    return f"""
trust_domain = "{identity.TRUST_DOMAIN}"
state_dir = "{home}/state"
run_dir = "{home}/run"
workers = 1
[admin]
socket = "{home}/admin.sock"
listen = "127.0.0.1:{metrics}"
[identity]
kind = "files"
directory = "{home}/identity"
[access_log]
path = "{home}/access.log"
[[registry]]
kind = "static"
name = "static"
path = "{home}/mesh.d"
"""


def _outbound(ports):
    return f"""
[[workload]]
name = "{identity.CALLER}"
identity = "{identity.spiffe_id(identity.CALLER)}"
outbound = "127.0.0.1:{ports.http}"
uid = {os.getuid()}
[[workload.upstream]]
service = "bulk.default"
port = "tcp"
listen = "127.0.0.1:{ports.bulk}"
[[workload.upstream]]
service = "echo.default"
port = "tcp"
listen = "127.0.0.1:{ports.echo}"
"""


def _inbound(ports, backend):
    def port(service, name, application, protocol):
        return (f'[[workload.port]]\nservice = "{service}.default"\nname = "{name}"\n'
                f'address = "127.0.0.1:{application}"\nprotocol = "{protocol}"\n')

    return f"""
[inbound]
listen = "127.0.0.1:{ports.mesh}"
[[workload]]
name = "{identity.CALLEE}"
identity = "{identity.spiffe_id(identity.CALLEE)}"
{port("app", "http", backend.stable, "http")}
{port("app-http2", "http", backend.http2, "http2")}
{port("bulk", "tcp", backend.bulk, "tcp")}
{port("echo", "tcp", backend.stable, "tcp")}
[[workload]]
name = "{identity.CANARY}"
identity = "{identity.spiffe_id(identity.CANARY)}"
{port("app", "http", backend.canary, "http")}
"""


def _mesh(ports, backend):
    def service(name, host, port, protocol, *endpoints):
        hosts = f'hosts = ["{host}"]\n' if host else ""
        return (f'[[service]]\nname = "{name}.default"\n{hosts}'
                f'ports = [{{ name = "{port}", number = 80, protocol = "{protocol}" }}]\n' + "".join(endpoints))

    def endpoint(instance, port, application, account, version):
        return (f'[[service.endpoint]]\ninstance = "{instance}"\nport = "{port}"\naddress = "127.0.0.1:{application}"\n'
                f'mesh = "127.0.0.1:{ports.mesh}"\nidentity = "{identity.spiffe_id(account)}"\n'
                f'labels = {{ version = "{version}" }}\n')

    plain = f'[[service.endpoint]]\ninstance = "plain-1"\nport = "http"\naddress = "127.0.0.1:{backend.stable}"\ntls = "off"\n'
    services = [
        service("app", APP, "http", "http", endpoint("app-1", "http", backend.stable, identity.CALLEE, "stable"),
                endpoint("app-2", "http", backend.canary, identity.CANARY, "canary")),
        service("app-http2", APP_HTTP2, "http", "http2",
                endpoint("app-http2-1", "http", backend.http2, identity.CALLEE, "stable")),
        service("plain", PLAIN, "http", "http", plain),
        service("bulk", None, "tcp", "tcp", endpoint("bulk-1", "tcp", backend.bulk, identity.CALLEE, "stable")),
        service("echo", None, "tcp", "tcp", endpoint("echo-1", "tcp", backend.stable, identity.CALLEE, "stable")),
    ]
    return "\n".join(services) + _route() + "".join(map(_policy, ("app", "app-http2")))


def _route():
    return f"""
[[route]]
name = "app"
service = "app.default"
[[route.rule]]
name = "canary"
match = [{{ path = {{ prefix = "{ALLOWED_PATHS}" }}, headers = [{{ name = "{CANARY_HEADER}", exact = "{CANARY_VALUE}" }}] }}]
backends = [{{ subset = {{ version = "canary" }}, weight = 1 }}]
request_timeout = "15s"
[[route.rule]]
name = "stable"
match = [{{ path = {{ prefix = "/" }} }}]
backends = [{{ subset = {{ version = "stable" }}, weight = 1 }}]
request_timeout = "15s"
retries = {{ attempts = 2 }}
"""


def _policy(service):
    methods = ", ".join(f'"{method}"' for method in METHODS)
    return f"""
[[policy]]
name = "only-web-{service}"
target = {{ service = "{service}.default" }}
action = "allow"
[[policy.rule]]
from = [{{ identity = "{identity.spiffe_id(identity.CALLER)}" }}]
to = [{{ methods = [{methods}], paths = ["{ALLOWED_PATHS}*"] }}]
"""
