//! Credential plugins: a program that the kubeconfig names prints a token or a certificate (`client.authentication.k8s.io`).
//!
//! Not kube's own runner: that one holds a thread for as long as the program hangs and never ends it, begins it twice for
//! each connection, and of one that failed gives no word but its exit status that may be shown.

use std::{
    cmp::Reverse,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use data_encoding::BASE64;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::config::{AuthInfo, ExecConfig};
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::Command,
    sync::{Mutex as Turn, OwnedMutexGuard},
    time::{Instant, timeout},
};
use weft_core::registry::RegistryError;

use super::config::{UNFIT_TOKEN, denied};
use crate::{credential::Token, names::quoted};

/// How long one may take.
const WITHIN: Duration = Duration::from_secs(25);
/// How long before it expires a credential is renewed, and how long nobody is asked again after that came to nothing.
const AHEAD: Duration = Duration::from_secs(60);
const REST: Duration = Duration::from_secs(5);
/// The longest answer, in bytes.
const MAX_ANSWER: u64 = 1 << 20;
/// How much of the end of what one complains of is kept, in bytes, and shown, in characters.
const COMPLAINT: (usize, usize) = (4 << 10, 200);
/// Longer words in it are not shown: they are more likely a credential than a word.
const MAX_WORD: usize = 32;
/// Shorter arguments and variables are no secrets.
const SHORTEST_SECRET: usize = 8;

/// A plugin, and what it said last.
pub(super) struct Plugin {
    exec: ExecConfig,
    within: Duration,
    held: Mutex<Option<Held>>,
    /// Whoever has it asks: one at a time.
    turn: Arc<Turn<Asked>>,
}

/// When one was asked last, and what came of it.
#[derive(Default)]
struct Asked(Option<(Instant, Result<Held, RegistryError>)>);

impl Asked {
    /// What came of it, if that was after this moment.
    fn since(&self, moment: Instant) -> Option<&Result<Held, RegistryError>> {
        self.0.as_ref().filter(|(ended, _)| *ended > moment).map(|(_, said)| said)
    }
}

/// What one said.
#[derive(Clone)]
struct Held {
    token: Option<Token>,
    certificate: Option<Certificate>,
    expires: Option<SystemTime>,
}

/// A certificate with its key, both PEM.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Certificate(String, String);

impl Certificate {
    /// Has connections made with it.
    pub(super) fn put_into(&self, user: &mut AuthInfo) {
        user.client_certificate_data = Some(BASE64.encode(self.0.as_bytes()));
        user.client_key_data = Some(BASE64.encode(self.1.as_bytes()).into());
    }
}

#[derive(Deserialize)]
struct Answer {
    status: Said,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Said {
    token: Option<String>,
    client_certificate_data: Option<String>,
    client_key_data: Option<String>,
    expiration_timestamp: Option<Time>,
}

impl Held {
    /// Whether it is of use for that much longer.
    fn holds(&self, ahead: Duration) -> bool {
        self.expires.is_none_or(|expires| SystemTime::now() + ahead < expires)
    }
}

impl Plugin {
    /// The plugin that a user of a kubeconfig has, where nothing stands there that comes before it.
    pub(super) fn of(user: &AuthInfo) -> Option<Arc<Self>> {
        let stands = user.auth_provider.is_some()
            || (user.username.is_some() && user.password.is_some())
            || user.token.is_some()
            || user.token_file.is_some();
        let exec = user.exec.clone().filter(|_| !stands)?;
        Some(Arc::new(Self { exec, within: WITHIN, held: Mutex::default(), turn: Arc::default() }))
    }

    /// The certificate that it gives, if it gives one; it is asked again before that expires.
    ///
    /// # Errors
    /// Says which plugin gave no credential, and why.
    pub(super) async fn certificate(self: &Arc<Self>) -> Result<Option<Certificate>, RegistryError> {
        Ok(self.credential().await?.certificate)
    }

    /// The token that it gives, if it gives one; it is asked again before that expires.
    ///
    /// # Errors
    /// As above.
    pub(super) async fn token(self: &Arc<Self>) -> Result<Option<Token>, RegistryError> {
        Ok(self.credential().await?.token)
    }

    /// What holds is given at once, and renewed beside when it is about to expire. It goes on to be asked where nobody waits
    /// for the answer any more: who asks next has it.
    async fn credential(self: &Arc<Self>) -> Result<Held, RegistryError> {
        if let Some(held) = self.held(AHEAD) {
            return Ok(held);
        }
        let this = self.clone();
        if let Some(held) = self.held(Duration::ZERO) {
            if let Ok(turn) = self.turn.clone().try_lock_owned()
                && turn.0.as_ref().is_none_or(|(ended, _)| ended.elapsed() >= REST)
            {
                tokio::spawn(async move { this.renew(turn).await });
            }
            return Ok(held);
        }
        let waits_since = Instant::now();
        let asked = tokio::spawn(async move {
            let turn = this.turn.clone().lock_owned().await;
            match (this.held(Duration::ZERO), turn.since(waits_since).cloned()) {
                (Some(held), _) => Ok(held),
                // Who was asked meanwhile was asked for all who waited. Clocks differ: what has expired by ours may hold.
                (None, Some(said)) => said,
                (None, None) => this.renew(turn).await,
            }
        });
        asked
            .await
            .map_err(|error| denied(&format!("the credential plugin was not asked to the end: {error}")))?
    }

    /// What was said last, if it is of use for that much longer.
    fn held(&self, ahead: Duration) -> Option<Held> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.clone().filter(|held| held.holds(ahead))
    }

    async fn renew(&self, mut turn: OwnedMutexGuard<Asked>) -> Result<Held, RegistryError> {
        let said = self.ask().await.map_err(|why| {
            let name = quoted(self.exec.command.as_deref().unwrap_or_default());
            denied(&format!("the credential plugin {name} {why}"))
        });
        *turn = Asked(Some((Instant::now(), said.clone())));
        if let Ok(held) = &said {
            *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Some(held.clone());
        }
        said
    }

    /// Asks it once.
    ///
    /// # Errors
    /// Says what it did instead, without a word of what it may have given.
    async fn ask(&self) -> Result<Held, String> {
        let mut child = self.command().spawn().map_err(|error| format!("does not start: {error}"))?;
        // Whatever it began goes with it, unless it ends by itself.
        let mut group = Group(child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?)));
        let (answer, complaint) = (child.stdout.take(), child.stderr.take());
        let ended = async {
            let (answer, complaint) = tokio::join!(beginning(answer), end(complaint));
            (child.wait().await, answer, complaint)
        };
        let (status, answer, complaint) = timeout(self.within, ended)
            .await
            .map_err(|_| format!("did not answer within {} s, and was ended", self.within.as_secs()))?;
        group.0 = None;
        let status = status.map_err(|error| format!("cannot be waited for: {error}"))?;
        if !status.success() {
            let complaint = self.shown(&complaint);
            let colon = if complaint.is_empty() { "" } else { ": " };
            return Err(format!("failed: {status}{colon}{complaint}"));
        }
        read(&answer)
    }

    fn command(&self) -> Command {
        let exec = &self.exec;
        let spec = match (&exec.cluster, exec.provide_cluster_info) {
            (Some(cluster), true) => json!({ "interactive": false, "cluster": cluster }),
            _ => json!({ "interactive": false }),
        };
        let question = json!({ "kind": "ExecCredential", "apiVersion": exec.api_version, "spec": spec });
        let mut command = Command::new(exec.command.as_deref().unwrap_or_default());
        command.args(exec.args.iter().flatten()).envs(self.variables());
        command.env("KUBERNETES_EXEC_INFO", question.to_string());
        for variable in exec.drop_env.iter().flatten() {
            command.env_remove(variable);
        }
        // Nobody sits at an agent's terminal.
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0).kill_on_drop(true);
        command
    }

    fn variables(&self) -> impl Iterator<Item = (&String, &String)> {
        let variables = self.exec.env.iter().flatten();
        variables.filter_map(|variable| Some((variable.get("name")?, variable.get("value")?)))
    }

    /// The end of what it complains of in one line, without what it was given and what may be a credential.
    fn shown(&self, complaint: &[u8]) -> String {
        let mut text = String::from_utf8_lossy(complaint).into_owned();
        let given = self.exec.args.iter().flatten().chain(self.variables().map(|(_, value)| value));
        let mut given: Vec<_> = given.filter(|text| text.len() >= SHORTEST_SECRET).collect();
        // One may begin with another.
        given.sort_by_key(|text| Reverse(text.len()));
        for secret in given {
            text = text.replace(secret.as_str(), "…");
        }
        let words = text.split_whitespace().map(|word| if word.len() > MAX_WORD { "…" } else { word });
        let line = words.collect::<Vec<_>>().join(" ");
        let skipped = line.chars().count().saturating_sub(COMPLAINT.1);
        let dots = if skipped > 0 { "…" } else { "" };
        let rest = line.chars().skip(skipped);
        dots.chars().chain(rest.filter(|letter| !letter.is_control())).collect()
    }
}

/// A group of processes that is ended with this.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            let _gone = kill_process_group(group, Signal::KILL);
        }
    }
}

async fn beginning(from: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut read = Vec::new();
    if let Some(mut from) = from {
        let _whole = (&mut from).take(MAX_ANSWER).read_to_end(&mut read).await;
        // Who is not read to the end does not end.
        let _rest = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
    }
    read
}

async fn end(from: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let (mut kept, mut piece) = (Vec::new(), vec![0; COMPLAINT.0]);
    let Some(mut from) = from else { return kept };
    while let Ok(count @ 1..) = from.read(&mut piece).await {
        kept.extend_from_slice(&piece[..count]);
        kept.drain(..kept.len().saturating_sub(COMPLAINT.0));
    }
    kept
}

fn read(answer: &[u8]) -> Result<Held, String> {
    // The error of a parser repeats what it parsed.
    let Answer { status } =
        serde_json::from_slice(answer).map_err(|_| "gave an answer that cannot be read".to_owned())?;
    let token = status.token.filter(|token| !token.is_empty());
    let token = token.map(|token| Token::new(&token)).transpose();
    Ok(Held {
        token: token.map_err(|_| format!("was of no use: {UNFIT_TOKEN}"))?,
        certificate: status
            .client_certificate_data
            .zip(status.client_key_data)
            .map(|(certificate, key)| Certificate(certificate, key)),
        expires: status.expiration_timestamp.map(|time| time.0.into()),
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    fn plugin(script: &str, within: Duration) -> Arc<Plugin> {
        let exec = json!({
            "apiVersion": "client.authentication.k8s.io/v1", "command": "sh", "args": ["-c", script],
            "env": [{"name": "PLUGIN_PASSWORD", "value": "SECRET-password"}],
        });
        let exec = serde_json::from_value(exec).unwrap();
        Arc::new(Plugin { exec, within, held: Mutex::default(), turn: Arc::default() })
    }

    #[tokio::test]
    async fn one_that_fails_is_named_with_its_last_words_and_no_secret() {
        let script = "echo SECRET-token; echo \"first\n $PLUGIN_PASSWORD\tplease login\" >&2; \
                      printf 'x%.0s' $(seq 100) >&2; echo >&2; exit 3";
        let error = plugin(script, WITHIN).credential().await.err().unwrap().to_string();
        assert!(error.contains("plugin \"sh\" failed: exit status: 3: first … please login …"), "{error}");
        assert!(!error.contains("SECRET") && !error.contains("xxx"), "{error}");
        let error = plugin("yes complaint | head -n 100000 >&2; exit 1", WITHIN).credential().await;
        assert!(error.err().unwrap().to_string().len() < 400);
        let error = plugin("echo '{\"status\": SECRET'", WITHIN).credential().await.err().unwrap();
        assert!(
            error.to_string().contains("cannot be read") && !error.to_string().contains("SECRET"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn one_that_hangs_is_ended_with_what_it_began() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("children");
        let script =
            format!("sleep 600 & echo $$ $! > {0}.part; mv {0}.part {0}; wait; sleep 600", file.display());
        let plugin = plugin(&script, Duration::from_secs(5));
        let error = plugin.credential().await.err().unwrap().to_string();
        assert!(error.contains("did not answer within 5 s, and was ended"), "{error}");
        let children = fs::read_to_string(&file).unwrap();
        let is_there = |child: &str| {
            let stat = fs::read_to_string(Path::new("/proc").join(child).join("stat")).unwrap_or_default();
            // One that has ended and that nobody has asked for yet is no process any more.
            !stat.is_empty() && !stat.contains(") Z ")
        };
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while children.split_whitespace().any(is_there) {
            assert!(std::time::Instant::now() < deadline, "{children}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    #[tokio::test]
    async fn a_credential_is_kept_until_it_is_about_to_expire() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("asked");
        let asked = async |expires: &str| {
            let _none = fs::remove_file(&file);
            let answer = format!("{{\"status\": {{\"token\": \"t\", \"expirationTimestamp\": {expires}}}}}");
            let plugin = plugin(&format!("echo x >> {}; echo '{answer}'", file.display()), WITHIN);
            for _ in 0..3 {
                assert_eq!(plugin.credential().await.unwrap().token.unwrap().secret(), "t");
            }
            fs::read_to_string(&file).unwrap().lines().count()
        };
        assert_eq!(asked("null").await, 1);
        assert_eq!(asked("\"2999-01-01T00:00:00Z\"").await, 1);
        assert_eq!(asked("\"2000-01-01T00:00:00Z\"").await, 3);
    }

    fn expiring_in(seconds: u64) -> String {
        let at = SystemTime::now() + Duration::from_secs(seconds);
        let at = k8s_openapi::jiff::Timestamp::try_from(at).unwrap();
        json!({"status": {"token": "t", "expirationTimestamp": at.to_string()}}).to_string()
    }

    #[tokio::test]
    async fn one_that_hangs_holds_nobody_up_who_has_a_credential() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("answer");
        let script = format!("cat {0} && rm {0} && exit; sleep 600", file.display());
        let plugin = plugin(&script, Duration::from_secs(2));
        fs::write(&file, expiring_in(4)).unwrap();
        for _ in 0..100 {
            let answered = timeout(Duration::from_secs(1), plugin.credential()).await;
            assert!(answered.is_ok_and(|held| held.is_ok()) || plugin.held(Duration::ZERO).is_none());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // Who needs one waits, and all of them for one question.
        while plugin.held(Duration::ZERO).is_some() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let begun = Instant::now();
        let waiting: Vec<_> = (0..5).map(|_| plugin.credential()).collect();
        let answers = futures_util::future::join_all(waiting).await;
        assert!(answers.iter().all(Result::is_err) && begun.elapsed() < Duration::from_secs(4));
    }

    #[tokio::test]
    async fn one_that_fails_takes_nothing_away_that_still_holds() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("answer");
        for (seconds, holds) in [(30, true), (0, false)] {
            let plugin = plugin(&format!("cat {}", file.display()), WITHIN);
            fs::write(&file, expiring_in(seconds)).unwrap();
            assert!(plugin.credential().await.is_ok());
            fs::remove_file(&file).unwrap();
            assert_eq!(plugin.credential().await.is_ok(), holds, "{seconds}");
        }
    }
}
