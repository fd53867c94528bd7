//! Writes into our own objects how they were understood, one after the other.
//!
//! A patch names the version that it is about, so that nothing said meanwhile is undone: who was overtaken sees the newer
//! object, and judges that. What cannot be written changes nothing of what is in force, and is tried again, each in its turn,
//! so that one that is refused holds up no other.
//!
//! Others may write the same conditions and judge otherwise, being of another version or configured otherwise. Every word of
//! one is news to the other, so what was written once does not at once take the place of another word on the same object.

use std::{collections::BTreeMap, ops::Bound, time::Duration};

use futures_core::future::BoxFuture;
use http::Request;
use k8s_openapi::jiff::Timestamp;
use kube::{
    api::{Patch, PatchParams},
    core::Request as Path,
};
use serde_json::json;
use tokio::time::{Instant, sleep_until};
use weft_core::registry::RegistryError;

use super::{
    client::Client,
    configured::{ACCEPTED, RESOLVED, Verdict},
    objects::{Condition, Kind},
};
use crate::http_client::{growing_pause, jittered};

/// How long to wait after a failure, longer with each in a row, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(300));

/// How long what was written is not written again over another word, before it is spread.
const REST: Duration = Duration::from_secs(300);

/// What a verdict is about.
type Subject = (Kind, Option<String>, String);

/// What is still to be written.
pub(super) struct Conditions {
    client: Client,
    wanted: BTreeMap<Subject, Verdict>,
    /// What was written last, and until when it is not written again over another word.
    written: BTreeMap<Subject, (Vec<Condition>, Instant)>,
    writing: Option<Writing>,
    /// Whose turn it was last.
    last: Option<Subject>,
    failures: u32,
    not_before: Instant,
}

struct Writing {
    verdict: Verdict,
    /// Whether it was written.
    answer: BoxFuture<'static, Result<bool, RegistryError>>,
}

impl Conditions {
    pub(super) fn new(client: Client) -> Self {
        let (wanted, written, not_before) = (BTreeMap::new(), BTreeMap::new(), Instant::now());
        Self { client, wanted, written, writing: None, last: None, failures: 0, not_before }
    }

    /// Takes in what is to be written; of an object the last counts.
    pub(super) fn want(&mut self, verdicts: Vec<Verdict>) {
        let now = Instant::now();
        self.written.retain(|_, (_, until)| *until > now);
        self.wanted.extend(verdicts.into_iter().map(|verdict| (subject(&verdict), verdict)));
    }

    /// Waits until one was written, or could not be: then it says why. May be given up and called again.
    pub(super) async fn next(&mut self) -> Option<String> {
        if self.writing.is_none() {
            let Some(due) = self.wanted.values().map(|verdict| self.due(verdict)).min() else {
                return std::future::pending().await;
            };
            sleep_until(due).await;
            let verdict = self.take_next()?;
            let (client, copy) = (self.client.clone(), verdict.clone());
            self.writing =
                Some(Writing { verdict, answer: Box::pin(async move { write(&client, copy).await }) });
        }
        let answer = (&mut self.writing.as_mut()?.answer).await;
        let Writing { verdict, .. } = self.writing.take()?;
        let error = match answer {
            Ok(is_written) => {
                self.failures = 0;
                if is_written {
                    let until = Instant::now() + jittered(REST);
                    self.written.insert(subject(&verdict), (judgement(&verdict), until));
                }
                return None;
            }
            Err(error) => error,
        };
        self.not_before = Instant::now() + growing_pause(PAUSE, self.failures);
        self.failures = self.failures.saturating_add(1);
        // What the server calls invalid stays so. All else is said later, unless there is a newer word by then.
        if !matches!(error, RegistryError::Malformed(_)) {
            self.wanted.entry(subject(&verdict)).or_insert(verdict);
        }
        Some(error.to_string())
    }

    /// When it may be written.
    fn due(&self, verdict: &Verdict) -> Instant {
        let written = self.written.get(&subject(verdict)).filter(|_| verdict.is_disputed);
        let same = written.filter(|(said, _)| *said == judgement(verdict));
        same.map_or(self.not_before, |(_, until)| self.not_before.max(*until))
    }

    /// The one after the last, of those that may be written.
    fn take_next(&mut self) -> Option<Verdict> {
        let now = Instant::now();
        let is_due = |(_, verdict): &(&Subject, &Verdict)| self.due(verdict) <= now;
        let after = self
            .last
            .as_ref()
            .and_then(|last| self.wanted.range((Bound::Excluded(last), Bound::Unbounded)).find(is_due));
        let next = after.or_else(|| self.wanted.iter().find(is_due))?.0.clone();
        let verdict = self.wanted.remove(&next);
        self.last = Some(next);
        verdict
    }
}

fn subject(verdict: &Verdict) -> Subject {
    (verdict.place.kind, verdict.place.namespace.clone(), verdict.name.clone())
}

/// What we say of an object, but for when it came to be so; what others say there is none of it.
fn judgement(verdict: &Verdict) -> Vec<Condition> {
    let ours = verdict.conditions.iter().filter(|condition| [ACCEPTED, RESOLVED].contains(&&*condition.kind));
    ours.map(|condition| Condition { last_transition_time: String::new(), ..condition.clone() }).collect()
}

/// Returns whether it is written.
async fn write(client: &Client, mut verdict: Verdict) -> Result<bool, RegistryError> {
    // To the second, as everybody else writes it.
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    for condition in verdict.conditions.iter_mut().filter(|it| it.last_transition_time.is_empty()) {
        condition.last_transition_time.clone_from(&now);
    }
    let what = verdict.place.describe("patch the status of");
    match client.short(&what, request(&what, &verdict)?).await {
        // Somebody changed it meanwhile (409), or took it away (404).
        Err(RegistryError::Malformed(why)) if [": 409: ", ": 404: "].iter().any(|it| why.contains(it)) => {
            Ok(false)
        }
        answer => answer.map(|_| true),
    }
}

fn request(what: &str, verdict: &Verdict) -> Result<Request<Vec<u8>>, RegistryError> {
    let path = Path::new(verdict.place.kind.path(verdict.place.namespace.as_deref()));
    let patch = Patch::Merge(json!({
        "metadata": { "resourceVersion": verdict.resource_version },
        "status": { "conditions": verdict.conditions },
    }));
    path.patch_subresource("status", &verdict.name, &PatchParams::default(), &patch)
        .map_err(|error| RegistryError::Malformed(format!("{what} cannot be asked: {error}")))
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::{Arc, Mutex},
    };

    use http::Response;
    use tower::service_fn;

    use super::{super::objects::Place, *};

    fn verdict(name: &str, version: &str) -> Verdict {
        let place = Place::all(Kind::Policies, Some("shop"));
        let (name, resource_version) = (name.to_owned(), version.to_owned());
        Verdict { place, name, resource_version, is_disputed: false, conditions: Vec::new() }
    }

    /// Answers with these, and notes which objects were patched.
    fn scripted(statuses: Vec<u16>) -> (Conditions, Arc<Mutex<Vec<String>>>) {
        let patched = Arc::new(Mutex::new(Vec::new()));
        let (noted, mut statuses) = (patched.clone(), statuses.into_iter());
        let service = service_fn(move |request: Request<kube::client::Body>| {
            let name = request.uri().path().split('/').rev().nth(1).unwrap().to_owned();
            noted.lock().unwrap().push(name);
            let response = Response::builder().status(statuses.next().unwrap());
            let response = response.body(http_body_util::Full::new(bytes::Bytes::from("{}"))).unwrap();
            async move { Ok::<_, Infallible>(response) }
        });
        (Conditions::new(Client::scripted(kube::Client::new(service, "default"))), patched)
    }

    #[tokio::test(start_paused = true)]
    async fn what_could_not_be_written_is_written_later_and_holds_up_no_other() {
        let (mut conditions, patched) = scripted(vec![503, 403, 200, 200]);
        conditions.want(vec![verdict("a", "1"), verdict("b", "1")]);
        let begin = Instant::now();
        let mut failed = Vec::new();
        for _ in 0..4 {
            failed.push(conditions.next().await.is_some());
        }
        assert_eq!(failed, [true, true, false, false]);
        assert_eq!(*patched.lock().unwrap(), ["a", "b", "a", "b"]);
        assert!(begin.elapsed() > PAUSE.0 && conditions.wanted.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_invalid_or_overtaken_is_not_said_again() {
        let (mut conditions, patched) = scripted(vec![422, 503, 200]);
        conditions.want(vec![verdict("a", "1")]);
        assert!(conditions.next().await.is_some() && conditions.wanted.is_empty());
        conditions.want(vec![verdict("a", "1")]);
        let newer = async {
            let mut next = std::pin::pin!(conditions.next());
            assert!(futures_util::poll!(&mut next).is_pending());
            next.await
        };
        assert!(newer.await.is_some());
        conditions.want(vec![verdict("a", "2")]);
        assert_eq!(
            (conditions.wanted.len(), conditions.wanted.values().next().unwrap().resource_version.as_str()),
            (1, "2")
        );
        assert!(conditions.next().await.is_none());
        assert_eq!(patched.lock().unwrap().len(), 3);
    }

    /// A verdict on "a" as it is at this version, of which all but the first say otherwise.
    fn judged(version: &str, status: &str) -> Verdict {
        let accepted = Condition { kind: ACCEPTED.into(), status: status.into(), ..Condition::default() };
        let other = Condition { kind: "Other".into(), reason: version.into(), ..Condition::default() };
        Verdict { is_disputed: version != "1", conditions: vec![other, accepted], ..verdict("a", version) }
    }

    /// How long it takes until these are written.
    async fn written(conditions: &mut Conditions, wanted: Verdict) -> Duration {
        conditions.want(vec![wanted]);
        let begin = Instant::now();
        assert_eq!(conditions.next().await, None);
        begin.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn two_that_judge_differently_do_not_overwrite_each_other_for_ever() {
        let (mut conditions, patched) = scripted(vec![200; 6]);
        let minutes = |count: u64| Duration::from_secs(60 * count);
        assert_eq!(written(&mut conditions, judged("1", "True")).await, Duration::ZERO);
        // Another one has judged otherwise since, which made version 2.
        let pause = written(&mut conditions, judged("2", "True")).await;
        assert!(pause > minutes(3) && pause < minutes(7), "{pause:?}");
        assert_eq!(written(&mut conditions, judged("3", "False")).await, Duration::ZERO, "it is another one");
        conditions.want(vec![judged("4", "False")]);
        let mut elsewhere = verdict("b", "1");
        elsewhere.conditions.clone_from(&judged("1", "False").conditions);
        assert_eq!(written(&mut conditions, elsewhere).await, Duration::ZERO, "who rests holds up no other");
        assert_eq!(*patched.lock().unwrap(), ["a", "a", "a", "b"]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_object_that_is_made_anew_is_told_at_once() {
        let (mut conditions, _) = scripted(vec![200; 2]);
        assert_eq!(written(&mut conditions, judged("1", "True")).await, Duration::ZERO);
        assert_eq!(written(&mut conditions, judged("1", "True")).await, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_overtaken_was_not_written() {
        let (mut conditions, _) = scripted(vec![409, 200]);
        assert_eq!(written(&mut conditions, judged("1", "True")).await, Duration::ZERO);
        assert_eq!(written(&mut conditions, judged("2", "True")).await, Duration::ZERO);
    }
}
