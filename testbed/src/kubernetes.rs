//! Kubernetes without nodes: etcd, the API server, the controller manager. Pods and nodes are objects that a test writes;
//! the real controllers make EndpointSlices and service accounts from them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    error::Error,
    etcd::Etcd,
    home::Home,
    ports::Port,
    process::{Process, Scratch, run_tool},
};

/// Makes keys, certificates and kubeconfigs; `testbed/try` runs the same file.
const PKI: &str = include_str!("../kubernetes/pki");

/// How Kubernetes is to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubernetesOptions {
    /// With the controller manager. Without it there are no service accounts, and so no pods, and EndpointSlices are
    /// those that a test writes; 2 s and 120 MB less.
    pub controllers: bool,
    /// More flags for the API server; the last of several wins.
    pub api_server: Vec<String>,
}

impl Default for KubernetesOptions {
    fn default() -> Self {
        Self { controllers: true, api_server: Vec::new() }
    }
}

/// A running control plane.
#[derive(Debug)]
pub struct Kubernetes {
    kubectl: PathBuf,
    port: Port,
    _controllers_port: Port,
    controllers: Option<Process>,
    api_server: Process,
    etcd: Etcd,
    scratch: Scratch,
}

impl Kubernetes {
    /// A Node and a Pod `web-1` on it, a Service `web` that selects it, and a Service `orders` whose EndpointSlice is
    /// written by hand. After it, [`Kubernetes::WEB_STATUS`] makes the pod ready.
    pub const WEB_OBJECTS: &str = include_str!("../kubernetes/web.yaml");
    /// The patch of the pod's status that a kubelet would send.
    pub const WEB_STATUS: &str = include_str!("../kubernetes/web-1.status.json");

    /// Starts it, and waits until the API server is ready and the controllers have made the service account `default`
    /// (5 s).
    ///
    /// # Errors
    ///
    /// [`Error::NotReady`] when it does not come up; other errors of the system.
    pub fn start(home: &Home, options: KubernetesOptions) -> Result<Self, Error> {
        let scratch = Scratch::new("kubernetes")?;
        let (port, controllers_port) = (Port::free()?, Port::free()?);
        let keys = scratch.path().join("pki");
        let mut pki = Command::new("bash");
        pki.args(["-c", PKI, "pki"]).arg(&keys).arg(port.number().to_string());
        run_tool("make keys and certificates", &mut pki, b"")?;
        let etcd = Etcd::start_in(&scratch, home, 1)?;
        let mut command = api_server(home, &keys, &etcd, &port);
        command.args(&options.api_server);
        let api_server = scratch.start("api-server", command)?;
        let kubectl = home.program("kubectl");
        let mut kubernetes = Self {
            kubectl,
            port,
            _controllers_port: controllers_port,
            controllers: None,
            api_server,
            etcd,
            scratch,
        };
        kubernetes.await_api_server()?;
        if options.controllers {
            let command = controllers(home, kubernetes.scratch.path(), &keys, &kubernetes._controllers_port);
            let controllers = kubernetes.scratch.start("controllers", command)?;
            kubernetes.scratch.await_ready("the controllers run", &[&controllers], || {
                kubernetes.kubectl(&["get", "serviceaccount", "default"], "").is_ok()
            })?;
            kubernetes.controllers = Some(controllers);
        }
        Ok(kubernetes)
    }

    /// Where the API server is: `https://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port.number())
    }

    /// The kubeconfig of the administrator, who may do everything.
    #[must_use]
    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.scratch.path().join("pki/admin.kubeconfig")
    }

    /// The certificate of the authority that signed the API server's.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.scratch.path().join("pki/ca.crt")
    }

    /// Runs kubectl as the administrator with that input, and gives its output.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] with what it complained of.
    pub fn kubectl(&self, arguments: &[&str], input: &str) -> Result<String, Error> {
        self.kubectl_as(&self.admin_kubeconfig(), arguments, input)
    }

    /// Runs kubectl as whom a kubeconfig says.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] with what it complained of.
    pub fn kubectl_as(&self, kubeconfig: &Path, arguments: &[&str], input: &str) -> Result<String, Error> {
        let mut command = Command::new(&self.kubectl);
        command.arg(format!("--kubeconfig={}", kubeconfig.display()));
        command.arg(format!("--cache-dir={}", self.scratch.path().join("kubectl").display()));
        command.args(arguments);
        let output = run_tool(&format!("kubectl {}", arguments.join(" ")), &mut command, input.as_bytes())?;
        Ok(String::from_utf8_lossy(&output).into_owned())
    }

    /// Writes objects, given as YAML or JSON, whether they exist or not.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`].
    pub fn apply(&self, objects: &str) -> Result<(), Error> {
        self.kubectl(&["apply", "-f", "-"], objects).map(drop)
    }

    /// Removes objects, given as YAML or JSON, if they exist.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`].
    pub fn delete(&self, objects: &str) -> Result<(), Error> {
        self.kubectl(&["delete", "--ignore-not-found", "--wait=false", "-f", "-"], objects).map(drop)
    }

    /// Merges a patch, JSON, into the status of a pod of the namespace `default`, as its kubelet would.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`].
    pub fn patch_pod_status(&self, pod: &str, patch: &str) -> Result<(), Error> {
        let arguments = ["patch", "pod", pod, "--subresource=status", "--type=merge", "-p", patch];
        self.kubectl(&arguments, "").map(drop)
    }

    /// A token for a service account of the namespace `default`, good for an hour, as its pods would have.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`].
    pub fn token(&self, service_account: &str) -> Result<String, Error> {
        Ok(self.kubectl(&["create", "token", service_account, "--duration=1h"], "")?.trim().to_owned())
    }

    /// Makes a service account of the namespace `default` and binds it, in all namespaces, to a ClusterRole; gives a
    /// kubeconfig with its token. `cluster_role` holds the objects, YAML or JSON, among which the role has that name. May be
    /// called again with other rights.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`].
    pub fn kubeconfig_for(
        &self,
        service_account: &str,
        role: &str,
        cluster_role: &str,
    ) -> Result<PathBuf, Error> {
        self.apply(cluster_role)?;
        self.apply(&format!(
            "{{apiVersion: v1, kind: ServiceAccount, metadata: {{name: {service_account}}}}}\n---\n\
             {{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding,\n\
             metadata: {{name: {service_account}}},\n\
             roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {role}}},\n\
             subjects: [{{kind: ServiceAccount, name: {service_account}, namespace: default}}]}}\n"
        ))?;
        let token = self.token(service_account)?;
        self.kubeconfig_with_token(service_account, &token)
    }

    /// Writes a kubeconfig that shows a token.
    ///
    /// # Errors
    ///
    /// [`Error::System`].
    pub fn kubeconfig_with_token(&self, name: &str, token: &str) -> Result<PathBuf, Error> {
        let (url, authority) = (self.url(), self.authority());
        self.scratch.write(
            &format!("{name}.kubeconfig"),
            format!(
                "apiVersion: v1\nkind: Config\ncurrent-context: testbed\n\
                 clusters:\n- name: testbed\n  cluster: {{server: \"{url}\", certificate-authority: {}}}\n\
                 users:\n- name: {name}\n  user: {{token: {token}}}\n\
                 contexts:\n- name: testbed\n  context: {{cluster: testbed, user: {name}}}\n",
                authority.display()
            ),
        )
    }

    /// Ends the API server as a crash would.
    pub fn kill_api_server(&self) {
        self.api_server.kill();
    }

    /// Starts the API server again, and waits until it is ready (2 s).
    ///
    /// # Errors
    ///
    /// [`Error::NotReady`].
    pub fn restart_api_server(&self) -> Result<(), Error> {
        self.api_server.start_again()?;
        self.await_api_server()
    }

    /// The process of the API server, to be paused for example.
    #[must_use]
    pub fn api_server(&self) -> &Process {
        &self.api_server
    }

    /// The process of the controller manager, when there is one.
    #[must_use]
    pub fn controllers(&self) -> Option<&Process> {
        self.controllers.as_ref()
    }

    /// The etcd below.
    #[must_use]
    pub fn etcd(&self) -> &Etcd {
        &self.etcd
    }

    /// Ends etcd as a crash would.
    pub fn kill_etcd(&self) {
        self.etcd.kill();
    }

    /// Starts etcd again with its state, and waits until the API server is ready (1 s).
    ///
    /// # Errors
    ///
    /// [`Error::NotReady`], [`Error::TimedOut`].
    pub fn restart_etcd(&self) -> Result<(), Error> {
        self.etcd.restart()?;
        self.await_api_server()
    }

    /// Makes everything as it was when etcd lay as it was copied: for tests of a restore from an old backup. The API
    /// server and the controllers are killed before and started again after, as Kubernetes' guide to a restore has it:
    /// controllers whose caches are ahead of the store overlook what is written after.
    ///
    /// # Errors
    ///
    /// [`Error::System`] when the copy cannot be read, [`Error::NotReady`].
    pub fn restore_etcd(&self, copy: &Path) -> Result<(), Error> {
        if let Some(controllers) = &self.controllers {
            controllers.kill();
        }
        self.kill_api_server();
        self.kill_etcd();
        let data = self.etcd_data();
        fs::remove_dir_all(&data).map_err(Error::system("remove the data of etcd"))?;
        copy_folder(copy, &data)?;
        self.etcd.restart()?;
        self.restart_api_server()?;
        self.controllers.as_ref().map_or(Ok(()), Process::start_again)
    }

    /// Copies the data of etcd into a folder of that name in the scratch folder. etcd is killed before, started again after.
    ///
    /// # Errors
    ///
    /// [`Error::System`], [`Error::NotReady`].
    pub fn copy_etcd(&self, name: &str) -> Result<PathBuf, Error> {
        let copy = self.scratch.path().join(name);
        self.kill_etcd();
        copy_folder(&self.etcd_data(), &copy)?;
        self.restart_etcd()?;
        Ok(copy)
    }

    /// Where the data and the logs lie.
    #[must_use]
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    fn etcd_data(&self) -> PathBuf {
        self.scratch.path().join("etcd-1")
    }

    fn await_api_server(&self) -> Result<(), Error> {
        let processes = [&self.api_server, self.etcd.member(0)];
        self.scratch.await_ready("the API server is ready", &processes, || {
            self.kubectl(&["get", "--raw", "/readyz"], "").is_ok()
        })
    }
}

fn api_server(home: &Home, keys: &Path, etcd: &Etcd, port: &Port) -> Command {
    let mut command = Command::new(home.program("kube-apiserver"));
    command.args([format!("--etcd-servers={}", etcd.url()), format!("--secure-port={}", port.number())]);
    let files = [
        ("tls-cert-file", "server.crt"),
        ("tls-private-key-file", "server.key"),
        ("client-ca-file", "ca.crt"),
        ("service-account-signing-key-file", "tokens.key"),
        ("service-account-key-file", "tokens.key"),
    ];
    command.args(files.map(|(flag, file)| format!("--{flag}={}", keys.join(file).display())));
    command.args([
        "--bind-address=127.0.0.1",
        // A loopback address cannot be advertised, and the server exits otherwise.
        "--endpoint-reconciler-type=none",
        "--authorization-mode=Node,RBAC",
        "--service-cluster-ip-range=10.96.0.0/16",
        "--service-account-issuer=https://kubernetes.default.svc",
    ]);
    command
}

fn controllers(home: &Home, scratch: &Path, keys: &Path, port: &Port) -> Command {
    let mut command = Command::new(home.program("kube-controller-manager"));
    let kubeconfig = keys.join("controllers.kubeconfig");
    for flag in ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"] {
        command.arg(format!("--{flag}={}", kubeconfig.display()));
    }
    command.args([
        format!("--secure-port={}", port.number()),
        format!("--cert-dir={}", scratch.join("controllers").display()),
        format!("--flex-volume-plugin-dir={}", scratch.join("flexvolume").display()),
        format!("--service-account-private-key-file={}", keys.join("tokens.key").display()),
        format!("--root-ca-file={}", keys.join("ca.crt").display()),
    ]);
    command.args([
        "--bind-address=127.0.0.1",
        "--authentication-skip-lookup",
        "--leader-elect=false",
        "--use-service-account-credentials=true",
        "--kube-api-qps=300",
        "--kube-api-burst=600",
        // Nobody sends heartbeats for a node that is only an object.
        "--controllers=*,-node-lifecycle-controller,-taint-eviction-controller",
    ]);
    command
}

fn copy_folder(from: &Path, to: &Path) -> Result<(), Error> {
    run_tool("copy a folder", Command::new("cp").arg("-a").arg(from).arg(to), b"").map(drop)
}
