//! From the settings to a connected client: kubeconfig or the pod's own service account, TLS, credentials.

use std::{
    collections::BTreeMap,
    env,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client as Http, connect::Connect},
    rt::{TokioExecutor, TokioTimer},
};
use kube::{
    Config,
    client::{AuthError, Body, ClientBuilder, ConfigExt},
    config::{Kubeconfig, KubeconfigError, NamedAuthInfo},
};
use tokio::{
    runtime::Handle,
    task::{JoinError, JoinHandle, spawn_blocking},
    time::timeout,
};
use tower::{BoxError, ServiceExt, filter::AsyncFilterLayer};
use weft_core::registry::RegistryError;

use super::{Client, bearer::Bearer, plugin::Plugin, proxy::Proxy, renewed::Renewed};
use crate::{http_client::connector, names::quoted};

/// How long reading the kubeconfig and asking its credential plugin may take.
const CREDENTIALS: Duration = Duration::from_secs(30);
/// How long a connection may be idle and be used again.
const IDLE: Duration = Duration::from_secs(60);
pub(super) const UNFIT_TOKEN: &str = "the token is more than visible ASCII characters";
const ACCOUNT_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// Where the API server is, and who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Access {
    /// The file that says where it is. None: the pod's own service account where one is mounted, else what kubectl takes.
    pub kubeconfig: Option<PathBuf>,
    /// The context of that file; its current one where none is named.
    pub context: Option<String>,
}

/// Makes a client. Whatever the kubeconfig names is read anew each time: that is how a token, a certificate or a server
/// that was replaced is taken up.
///
/// # Errors
/// When the configuration or a credential cannot be had.
pub async fn connect(access: &Access) -> Result<Client, RegistryError> {
    let attempt = {
        let mut attempts = ATTEMPTS.lock().unwrap_or_else(PoisonError::into_inner);
        attempts.entry(access.clone()).or_default().clone()
    };
    let access = access.clone();
    let Some(made) = one_at_a_time(&attempt, CREDENTIALS, move || client(&access)).await else {
        let seconds = CREDENTIALS.as_secs();
        let why = format!("the kubeconfig and what it names could not be read within {seconds} s");
        return Err(RegistryError::Unreachable(why));
    };
    // kube panics on a token that no header can hold.
    made.map_err(|_| denied(UNFIT_TOKEN))?
}

/// An attempt under way, if any.
type Attempt<T> = tokio::sync::Mutex<Option<JoinHandle<T>>>;

type Attempts = BTreeMap<Access, Arc<Attempt<Result<Client, RegistryError>>>>;

/// By what they are made for.
static ATTEMPTS: Mutex<Attempts> = Mutex::new(Attempts::new());

/// Waits for what is made, if it is in time. A file on a server that is away is waited for by a whole thread: one that hangs
/// is waited for by whoever comes next, for if each attempt began another one they would have all threads in the end, and
/// nothing else could read a file.
async fn one_at_a_time<T: Send + 'static>(
    attempt: &Attempt<T>,
    within: Duration,
    make: impl FnOnce() -> T + Send + 'static,
) -> Option<Result<T, JoinError>> {
    let made = async {
        let mut running = attempt.lock().await;
        let made = running.get_or_insert_with(|| spawn_blocking(make)).await;
        *running = None;
        made
    };
    timeout(within, made).await.ok()
}

fn client(access: &Access) -> Result<Client, RegistryError> {
    // kube takes the process's provider of cryptography. Where there is none yet, it is ours; that another thread was
    // faster does not matter.
    let _set = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let (mut config, proxy) = config(access)?;
    match Plugin::of(&config.auth_info) {
        Some(plugin) => Handle::current().block_on(Renewed::new(config, proxy, plugin)).map(Client::renewed),
        None => {
            let bearer = Handle::current().block_on(Bearer::file(&mut config.auth_info))?;
            stack(&config, proxy.as_ref(), bearer).map(Client::made)
        }
    }
}

/// What asks as a configuration says, and shows a token that may be another by the next question.
///
/// # Errors
/// When what the configuration names is of no use.
pub(super) fn stack(
    config: &Config,
    proxy: Option<&Proxy>,
    bearer: Option<Bearer>,
) -> Result<kube::Client, RegistryError> {
    match proxy {
        None => stack_over(config, connector(), bearer),
        Some(proxy) => stack_over(config, proxy.connector(), bearer),
    }
}

fn stack_over<C>(config: &Config, connector: C, bearer: Option<Bearer>) -> Result<kube::Client, RegistryError>
where
    C: Clone + Send + 'static,
    HttpsConnector<C>: Connect + Clone + Send + Sync + 'static,
{
    let unusable = |error: kube::Error| match error {
        kube::Error::Auth(error) => no_credential(&error),
        error => unusable(&error.to_string()),
    };
    let tls = config.rustls_https_connector_with_connector(connector).map_err(unusable)?;
    let http: Http<_, Body> =
        Http::builder(TokioExecutor::new()).pool_idle_timeout(IDLE).pool_timer(TokioTimer::new()).build(tls);
    let auth = config.auth_layer().map_err(unusable)?;
    let stack = ClientBuilder::new(http.map_err(BoxError::from), config.default_namespace.clone());
    let headers = config.extra_headers_layer().map_err(unusable)?;
    let (stack, base) = (stack.with_layer(&headers), config.base_uri_layer());
    Ok(match (auth, bearer) {
        (Some(auth), _) => stack.with_layer(&auth).with_layer(&base).build(),
        (None, Some(bearer)) => {
            let show = AsyncFilterLayer::new(move |request| bearer.clone().show(request));
            stack.with_layer(&show).with_layer(&base).build()
        }
        (None, None) => stack.with_layer(&base).build(),
    })
}

fn config(access: &Access) -> Result<(Config, Option<Proxy>), RegistryError> {
    let is_pod = env::var_os("KUBERNETES_SERVICE_HOST").is_some() && Path::new(ACCOUNT_TOKEN).exists();
    if access.kubeconfig.is_none() && is_pod {
        let config = Config::incluster().map_err(|error| unusable(&error.to_string()))?;
        return Ok((config, None));
    }
    let read = match &access.kubeconfig {
        Some(path) => Kubeconfig::read_from(path),
        None => Kubeconfig::read(),
    };
    let mut kubeconfig = read.map_err(|error| unusable_kubeconfig(&error))?;
    if let Some(context) = &access.context {
        kubeconfig.current_context = Some(context.clone());
    }
    // A proxy of the environment is for the world outside; one that is written here is meant for this server.
    let proxy = proxy(&kubeconfig).map_err(|why| unusable(&why))?;
    if !tokens_are_fit(&kubeconfig) {
        return Err(unusable(&format!("in the kubeconfig, {UNFIT_TOKEN}")));
    }
    let config = Config::try_from(kubeconfig).map_err(|error| unusable_kubeconfig(&error))?;
    let host = config.cluster_url.host().unwrap_or_default();
    let local = ["127.0.0.1", "[::1]", "localhost"].contains(&host);
    if config.accept_invalid_certs {
        return Err(unusable(
            "the kubeconfig says insecure-skip-tls-verify: whoever answers could name any identity; give \
             certificate-authority instead",
        ));
    }
    if config.cluster_url.scheme_str().is_none() {
        return Err(unusable("the kubeconfig's server has no scheme: it should begin with https://"));
    }
    // What a proxy takes for this host is its own.
    if config.cluster_url.scheme_str() != Some("https") && (!local || proxy.is_some()) {
        return Err(unusable("the kubeconfig's server is not https, and not reached on this host"));
    }
    Ok((config, proxy))
}

/// Through whom the cluster of the context that is taken is to be reached.
///
/// # Errors
/// Says of which cluster that is none for us, and why.
fn proxy(kubeconfig: &Kubeconfig) -> Result<Option<Proxy>, String> {
    let cluster = || {
        let chosen = kubeconfig.current_context.as_ref()?;
        let context = kubeconfig.contexts.iter().find(|named| named.name == *chosen)?.context.as_ref()?;
        let named = kubeconfig.clusters.iter().find(|named| named.name == context.cluster)?;
        Some((&named.name, named.cluster.as_ref()?.proxy_url.as_deref()?))
    };
    let Some((name, url)) = cluster().filter(|(_, url)| !url.is_empty()) else { return Ok(None) };
    let told = |why| format!("the kubeconfig's cluster {} has a proxy-url {why}", quoted(name));
    Proxy::read(url).map(Some).map_err(told)
}

/// Whether the tokens that stand in the file can be sent.
fn tokens_are_fit(kubeconfig: &Kubeconfig) -> bool {
    let is_fit = |user: &NamedAuthInfo| {
        let user = serde_json::to_value(user).unwrap_or_default();
        let token = user["user"]["token"].as_str().unwrap_or_default();
        token.bytes().all(|byte| byte.is_ascii_graphic())
    };
    kubeconfig.auth_infos.iter().all(is_fit)
}

fn unusable(why: &str) -> RegistryError {
    RegistryError::Unreachable(format!("no way to the API server: {why}"))
}

/// Says what is wrong without a word of what stands in the file: that may be a secret.
fn unusable_kubeconfig(error: &KubeconfigError) -> RegistryError {
    match error {
        KubeconfigError::Parse(_) => unusable("the kubeconfig is no YAML of a kubeconfig"),
        KubeconfigError::ParseClusterUrl(_) => unusable("the kubeconfig's server is no URL"),
        error => unusable(&error.to_string()),
    }
}

/// Says why there is no credential without a word of what a plugin or a file said: that may be the credential.
pub(super) fn no_credential(error: &AuthError) -> RegistryError {
    let why = match error {
        AuthError::AuthExecRun { status, .. } => format!("the command of the auth-provider failed: {status}"),
        AuthError::ParseTokenKey(_) => "the answer of the auth-provider's command cannot be read".into(),
        AuthError::InvalidBearerToken(_) => UNFIT_TOKEN.into(),
        AuthError::ReadTokenFile(error, path) => format!("no token in {}: {error}", path.display()),
        AuthError::AuthExec(_) => "the auth-provider cannot be used".into(),
        error => error.to_string(),
    };
    denied(&why)
}

pub(super) fn denied(why: &str) -> RegistryError {
    RegistryError::Denied(format!("no credential for the API server: {why}"))
}

#[cfg(test)]
mod tests {
    use std::sync::{
        atomic::{AtomicU32, Ordering},
        mpsc,
    };

    use super::*;

    #[tokio::test]
    async fn a_kubeconfig_that_the_library_would_panic_of_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kubeconfig");
        let told = async |server: &str, user: &str| {
            let text = format!(
                "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{{name: c, cluster: {{server: \"{server}\"}}}}]\n\
                 users: [{{name: u, user: {{{user}}}}}]\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n"
            );
            std::fs::write(&path, text).unwrap();
            let access = Access { kubeconfig: Some(path.clone()), context: None };
            connect(&access).await.err().map(|error| error.to_string()).unwrap_or_default()
        };
        let scheme = told("127.0.0.1:1", "").await;
        assert!(scheme.contains("begin with https://"), "{scheme}");
        let inline = told("https://127.0.0.1:1", "token: \"SEC\\nRET\"").await;
        assert!(inline.contains("visible ASCII") && !inline.contains("SEC"), "{inline}");
        let answer = "{\\\"apiVersion\\\":\\\"client.authentication.k8s.io/v1\\\",\\\"kind\\\":\\\"ExecCredential\\\",\\\"status\\\":{\\\"token\\\":\\\"SEC\\\\nRET\\\"}}";
        let exec = format!(
            "exec: {{apiVersion: client.authentication.k8s.io/v1, command: echo, args: [\"{answer}\"]}}"
        );
        let plugin = told("https://127.0.0.1:1", &exec).await;
        assert!(plugin.contains("visible ASCII") && !plugin.contains("SEC"), "{plugin}");
    }

    #[tokio::test]
    async fn only_the_proxy_of_the_context_that_is_taken_is_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kubeconfig");
        let text = "apiVersion: v1\nkind: Config\ncurrent-context: near\n\
                    clusters:\n- {name: plain, cluster: {server: \"https://127.0.0.1:1\", proxy-url: \"\"}}\n\
                    - {name: behind, cluster: {server: \"https://127.0.0.1:1\", proxy-url: \"socks5://me:SECRET@proxy:3128\"}}\n\
                    users: [{name: u, user: {}}]\n\
                    contexts: [{name: near, context: {cluster: plain, user: u}}, {name: far, context: {cluster: behind, user: u}}]\n";
        std::fs::write(&path, text).unwrap();
        let told = async |context: Option<&str>| {
            let access = Access { kubeconfig: Some(path.clone()), context: context.map(Into::into) };
            connect(&access).await.err().map(|error| error.to_string())
        };
        assert_eq!((told(None).await, told(Some("near")).await), (None, None));
        let far = told(Some("far")).await.unwrap();
        assert!(
            far.contains("cluster \"behind\" has a proxy-url of socks5: only http://")
                && !far.contains("SECRET"),
            "{far}"
        );
    }

    #[tokio::test]
    async fn what_hangs_is_waited_for_and_not_begun_again() {
        let (release, held) = mpsc::channel::<()>();
        let (held, begun) = (Arc::new(Mutex::new(held)), Arc::new(AtomicU32::new(0)));
        let attempt = Attempt::default();
        let attend = async |within: u64| {
            let (held, begun) = (held.clone(), begun.clone());
            let make = move || {
                held.lock().unwrap().recv().unwrap();
                begun.fetch_add(1, Ordering::Relaxed) + 1
            };
            let made = one_at_a_time(&attempt, Duration::from_millis(within), make).await;
            made.map(Result::unwrap)
        };
        assert_eq!((attend(20).await, attend(20).await), (None, None));
        release.send(()).unwrap();
        assert_eq!(attend(60_000).await, Some(1));
        // Had there been others, they would take this.
        release.send(()).unwrap();
        assert_eq!(attend(60_000).await, Some(2));
        release.send(()).unwrap();
        assert!(held.lock().unwrap().try_recv().is_ok(), "nobody else waits");
    }
}
