"""Makes the identities of the run with openssl: a root, the caller `web`, the callee `app`, and a stranger's root.

Each leaf carries its SPIFFE URI (what Weft and Envoy check), the server name of the mesh and its common name (what
HAProxy, which cannot read URI names, checks instead).
"""

import ssl
import subprocess

TRUST_DOMAIN = "bench.mesh"
CALLER, CALLEE, CANARY, STRANGER = "web", "app", "app-canary", "stranger"
DAYS = "7"


def spiffe_id(account):
    """The SPIFFE ID of an account of the run."""
    return f"spiffe://{TRUST_DOMAIN}/ns/default/sa/{account}"


def server_name(account):
    """The name dialled in TLS: account, namespace and trust domain."""
    return f"{account}.default.{TRUST_DOMAIN}"


def client_context(certificates, account, protocol):
    """A TLS client that shows the certificate of `account` (none when it is none) and trusts any server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols([protocol])
    if account:
        context.load_cert_chain(certificates.chain(account), certificates.key(account))
    return context


class Certificates:
    """The files of the run, in one folder."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir()
        self.root = self._root("bundle")
        self._root("other")
        for account in (CALLER, CALLEE, CANARY):
            self._leaf(account, "bundle")
        self._leaf(STRANGER, "other")

    def chain(self, account):
        """The leaf certificate of `account`."""
        return self.folder / f"{account}.pem"

    def key(self, account):
        """The private key of `account`."""
        return self.folder / f"{account}.key"

    def both(self, account):
        """Certificate and key in one file, as HAProxy reads them."""
        return self.folder / f"{account}.both.pem"

    def _root(self, name):
        key, certificate = self.folder / f"{name}.key", self.folder / f"{name}.pem"
        self._new_key(key)
        self._openssl("req", "-x509", "-new", "-key", key, "-subj", f"/O={TRUST_DOMAIN}/CN={name}", "-days", DAYS,
                      "-addext", "keyUsage=critical,keyCertSign,cRLSign", "-out", certificate)
        return certificate

    def _leaf(self, account, root):
        extensions = self.folder / f"{account}.ext"
        extensions.write_text(
            f"subjectAltName=URI:{spiffe_id(account)},DNS:{server_name(account)}\n"
            "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n"
            "extendedKeyUsage=serverAuth,clientAuth\n"
            "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
        )
        request = self.folder / f"{account}.csr"
        self._new_key(self.key(account))
        self._openssl("req", "-new", "-key", self.key(account), "-subj", f"/CN={account}", "-out", request)
        self._openssl("x509", "-req", "-in", request, "-CA", self.folder / f"{root}.pem", "-CAkey",
                      self.folder / f"{root}.key", "-CAcreateserial", "-days", DAYS, "-extfile", extensions,
                      "-out", self.chain(account))
        self.both(account).write_text(self.chain(account).read_text() + self.key(account).read_text())

    def _new_key(self, path):
        self._openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-out", path)
        path.chmod(0o600)

    @staticmethod
    def _openssl(*arguments):
        done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"openssl {arguments[0]} failed: {done.stderr.strip()}")
