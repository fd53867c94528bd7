//! What no real server can be made to say at will: silence on one connection of several, and when to come again.

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    sync::{Mutex, PoisonError},
};

use futures_util::StreamExt;
use http::{Response, StatusCode};
use http_body_util::{StreamBody, combinators::BoxBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tower::BoxError;

use super::{refusals::PATIENCE, *};
use crate::kubernetes::objects::Kind;

#[derive(Clone)]
enum Answer {
    /// Lines, and then silence.
    Silence(Vec<Value>),
    /// Lines, and then the end.
    End(Vec<Value>),
    /// With what is said of when to come again.
    Refusal(u16, Option<&'static str>),
    Broken,
}

#[derive(Default)]
struct Script {
    answers: VecDeque<Answer>,
    asked: Vec<(Instant, String)>,
    /// Where the server says that it is.
    version: u32,
    /// What it said of each object last.
    known: BTreeMap<String, Value>,
    /// Whether it knows nothing of that any more when it is asked for one.
    forgets: bool,
    /// The version in which it has it then, if that is another.
    changes: Option<u32>,
}

impl Script {
    /// Whether the next answer is a refusal, to whatever is asked.
    fn refuses(&self) -> bool {
        matches!(self.answers.front(), Some(Answer::Refusal(..) | Answer::Broken))
    }
}

type Shared = Arc<Mutex<Script>>;

fn held(script: &Shared) -> std::sync::MutexGuard<'_, Script> {
    script.lock().unwrap_or_else(PoisonError::into_inner)
}

fn body(lines: Vec<Value>, is_over: bool) -> BoxBody<Bytes, Infallible> {
    let frames = lines.into_iter().map(|line| Ok(Frame::data(Bytes::from(format!("{line}\n")))));
    let frames = futures_util::stream::iter(frames);
    if is_over {
        BoxBody::new(StreamBody::new(frames))
    } else {
        BoxBody::new(StreamBody::new(frames.chain(futures_util::stream::pending())))
    }
}

fn answer(script: &Shared, asked: String) -> Result<Response<BoxBody<Bytes, Infallible>>, BoxError> {
    let mut script = held(script);
    if asked.contains("limit=1") && !script.refuses() {
        let is_asked = |name: &str| {
            let anyone = !asked.contains("metadata.name");
            !script.forgets && (anyone || asked.contains(&format!("metadata.name%3D{name}%2C")))
        };
        let mut items: Vec<_> =
            script.known.iter().filter(|(name, _)| is_asked(name)).map(|(_, it)| it.clone()).collect();
        if let Some(version) = script.changes {
            items.iter_mut().for_each(|it| it["metadata"]["resourceVersion"] = json!(version.to_string()));
        }
        let list = json!({ "metadata": { "resourceVersion": script.version.to_string() }, "items": items });
        return Ok(Response::new(body(vec![list], true)));
    }
    script.asked.push((Instant::now(), asked));
    // The last one is for whoever asks again and again.
    let answer =
        if script.answers.len() > 1 { script.answers.pop_front() } else { script.answers.front().cloned() };
    let answer = answer.unwrap();
    if let Answer::Silence(lines) | Answer::End(lines) = &answer {
        for object in lines.iter().map(|line| &line["object"]) {
            if let Some(name) = object["metadata"]["name"].as_str() {
                script.known.insert(name.to_owned(), object.clone());
            }
        }
    }
    match answer {
        Answer::Silence(lines) => Ok(Response::new(body(lines, false))),
        Answer::End(lines) => Ok(Response::new(body(lines, true))),
        Answer::Refusal(status, retry_after) => {
            let mut response = Response::new(body(vec![json!({"message": "not now"})], true));
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            if let Some(value) = retry_after {
                response.headers_mut().insert(http::header::RETRY_AFTER, value.parse().unwrap());
            }
            Ok(response)
        }
        Answer::Broken => Err("nobody listens".into()),
    }
}

/// What a feed says, one letter a word, and the error that it ends with.
struct Heard {
    script: Shared,
    is_back: Arc<Notify>,
    said: mpsc::Receiver<Result<Vec<Word>, RegistryError>>,
}

impl Heard {
    fn of(answers: &[Answer]) -> Self {
        Self::of_a_server_at(1000, answers)
    }

    fn of_a_server_at(version: u32, answers: &[Answer]) -> Self {
        let answers = answers.iter().cloned().collect();
        let script = Shared::new(Mutex::new(Script { answers, version, ..Script::default() }));
        let asked = script.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let answered = answer(&asked, request.uri().to_string());
            async move { answered }
        });
        let feed = Feed {
            place: Place::all(Kind::Services, None),
            selector: Selector::default(),
            streams_lists: Arc::new(AtomicBool::new(true)),
            is_back: Arc::default(),
        };
        let is_back = feed.is_back.clone();
        let (sender, said) = mpsc::channel(64);
        tokio::spawn(async move {
            let mut words = feed.follow(Client::scripted(kube::Client::new(service, "default"))).boxed();
            while let Some(word) = words.next().await {
                if sender.send(word).await.is_err() {
                    return;
                }
            }
        });
        Self { script, is_back, said }
    }

    /// All that is said until that many questions were put and an hour went by, or until the end.
    async fn all(mut self, questions: usize) -> (String, Option<RegistryError>, Vec<(Instant, String)>) {
        let mut letters = String::new();
        let mut error = None;
        while held(&self.script).asked.len() < questions && error.is_none() {
            match timeout(Duration::from_secs(1), self.said.recv()).await {
                Ok(Some(Ok(words))) => letters.extend(words.iter().map(letter)),
                Ok(Some(Err(why))) => error = Some(why),
                Ok(None) => break,
                Err(_) => {}
            }
        }
        while let Ok(Some(Ok(words))) = timeout(Duration::from_secs(1), self.said.recv()).await {
            letters.extend(words.iter().map(letter));
        }
        let asked = held(&self.script).asked.clone();
        (letters, error, asked)
    }
}

fn letter(word: &Word) -> char {
    match word {
        Word::Listing => '[',
        Word::Listed => ']',
        Word::Put(_) => '+',
        Word::Gone(_) => '-',
        Word::Unreadable(_) | Word::GoneUnread(_) => '?',
        Word::Away => '(',
        Word::Back => ')',
    }
}

fn line(word: &str, name: &str, version: u32) -> Value {
    json!({"type": word, "object": {"metadata":
        {"name": name, "namespace": "default", "resourceVersion": version.to_string()}}})
}

fn list() -> Vec<Value> {
    let end = json!({"type": "BOOKMARK", "object": {"metadata":
        {"resourceVersion": "10", "annotations": {"k8s.io/initial-events-end": "true"}}}});
    vec![line("ADDED", "web", 9), end]
}

fn error(code: u16) -> Value {
    json!({"type": "ERROR", "object": {"code": code, "message": "not now", "reason": "x"}})
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_says_nothing_is_taken_up_where_it_was() {
    let heard = Heard::of(&[Answer::Silence(list()), Answer::Silence(vec![line("MODIFIED", "web", 11)])]);
    let (said, error, asked) = heard.all(2).await;
    assert_eq!((said.as_str(), error), ("[+]+", None));
    assert_eq!(asked[1].0 - asked[0].0, QUIET);
    assert!(
        asked[1].1.contains("resourceVersion=10&") || asked[1].1.ends_with("resourceVersion=10"),
        "{asked:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn after_a_silence_a_watch_is_taken_up_on_another_connection() {
    let heard = Heard::of(&[Answer::Silence(list()), Answer::Silence(vec![line("MODIFIED", "web", 11)])]);
    let is_back = heard.is_back.clone();
    tokio::spawn(async move {
        sleep(Duration::from_secs(5)).await;
        is_back.notify_waiters();
    });
    let (said, error, asked) = heard.all(2).await;
    assert_eq!((said.as_str(), error), ("[+]+", None));
    assert_eq!(asked[1].0 - asked[0].0, Duration::from_secs(5));
    assert!(asked[1].1.contains("resourceVersion=10"), "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_rest_gets_it_and_is_not_asked_for_everything_again() {
    let heard = Heard::of(&[
        Answer::End(list()),
        Answer::Refusal(429, Some("7")),
        Answer::Refusal(503, None),
        Answer::Broken,
        Answer::Silence(vec![line("MODIFIED", "web", 11)]),
    ]);
    let (said, error, asked) = heard.all(5).await;
    assert_eq!((said.as_str(), error), ("[+](+)".replace("+)", ")+").as_str(), None));
    let rest = asked[2].0 - asked[1].0;
    assert!(rest > Duration::from_secs(7) && rest < Duration::from_secs(8), "{rest:?}");
    assert!(asked[1..].iter().all(|(_, asked)| !asked.contains("sendInitialEvents=true")), "{asked:?}");
    assert!(asked[4].1.contains("resourceVersion=10"), "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn an_error_within_a_watch_ends_that_watch_alone() {
    for code in [429, 500, 504] {
        let (said, error, asked) = Heard::of(&[
            Answer::Silence([list(), vec![line("ADDED", "api", 12), error(code)]].concat()),
            Answer::Silence(vec![line("MODIFIED", "web", 13)]),
        ])
        .all(2)
        .await;
        assert_eq!((said.as_str(), error), ("[+]+()+", None), "{code}");
        assert!(asked[1].1.contains("resourceVersion=12"), "{asked:?}");
    }
    // What is forgotten is listed.
    let forgotten = [list(), vec![error(410)]].concat();
    let heard = Heard::of(&[Answer::Silence(forgotten), Answer::Silence(list())]);
    assert_eq!(heard.all(2).await.0, "[+][+]");
}

#[tokio::test(start_paused = true)]
async fn who_refuses_for_long_is_away() {
    let begin = Instant::now();
    let heard = Heard::of(&[Answer::End(list()), Answer::Refusal(503, None)]);
    let (said, error, asked) = heard.all(1000).await;
    assert_eq!(said, "[+](");
    assert!(matches!(error, Some(RegistryError::Unreachable(_))), "{error:?}");
    assert!(begin.elapsed() > PATIENCE && asked.len() < 20, "{} questions", asked.len());
    // A first list that is refused is an outage at once, unless the server says that it is too busy.
    let (said, error, _) = Heard::of(&[Answer::Refusal(503, None)]).all(1000).await;
    assert!(said.is_empty() && matches!(error, Some(RegistryError::Unreachable(_))), "{said} {error:?}");
    let heard = Heard::of(&[Answer::Refusal(429, Some("1")), Answer::Silence(list())]);
    assert_eq!(heard.all(2).await.0, "[([)+]");
}

#[tokio::test(start_paused = true)]
async fn what_is_denied_right_after_an_outage_is_part_of_it() {
    let denied = || Answer::Refusal(403, None);
    let after = Answer::Silence(vec![line("MODIFIED", "web", 11)]);
    let heard = Heard::of(&[Answer::End(list()), Answer::Broken, denied(), denied(), after]);
    let (said, error, asked) = heard.all(5).await;
    assert_eq!((said.as_str(), error), ("[+]()+", None));
    assert!(asked[4].1.contains("resourceVersion=10"), "{asked:?}");
    // A server that stands by it means it, and so does one that was never away.
    let begin = Instant::now();
    let (said, error, _) = Heard::of(&[Answer::End(list()), Answer::Broken, denied()]).all(1000).await;
    assert_eq!(said, "[+](");
    assert!(matches!(error, Some(RegistryError::Denied(_))) && begin.elapsed() > PATIENCE, "{error:?}");
    let (said, error, asked) = Heard::of(&[denied()]).all(1000).await;
    assert!(matches!(error, Some(RegistryError::Denied(_))), "{said} {error:?} {asked:?}");
    assert_eq!(asked.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_went_back_in_time_is_listed() {
    let restored = [Answer::End(list()), Answer::Broken, Answer::Silence(list())];
    let (said, error, asked) = Heard::of_a_server_at(9, &restored).all(3).await;
    assert_eq!((said.as_str(), error), ("[+]([)+]", None));
    assert!(asked[2].1.contains("sendInitialEvents=true"), "{asked:?}");
    // It has gone on since, and its versions are past ours.
    let other = vec![line("ADDED", "web", 8), list().pop().unwrap()];
    let restored = [Answer::End(list()), Answer::Broken, Answer::Silence(other)];
    let heard = Heard::of_a_server_at(1000, &restored);
    held(&heard.script).forgets = true;
    let (said, error, asked) = heard.all(3).await;
    assert_eq!((said.as_str(), error), ("[+]([)+]", None));
    assert!(asked[2].1.contains("sendInitialEvents=true"), "{asked:?}");
    // There was nothing, and there is something.
    let empty = || vec![list().pop().unwrap()];
    let restored = [Answer::End(empty()), Answer::Broken, Answer::Silence(list())];
    let heard = Heard::of(&restored);
    held(&heard.script).known.insert("web".into(), line("ADDED", "web", 8)["object"].clone());
    assert_eq!(heard.all(3).await.0, "[]([)+]");
    let (said, _, asked) =
        Heard::of(&[Answer::End(empty()), Answer::Broken, Answer::Silence(vec![])]).all(3).await;
    assert!(said == "[]()" && asked[2].1.contains("resourceVersion=10"), "{said} {asked:?}");
    // Nor is that the same which has changed since; but who was merely cut off takes it up.
    for (between, expected) in [(Some(Answer::Broken), "[+]([)+]"), (None, "[+]+")] {
        let then = if between.is_some() { list() } else { vec![line("MODIFIED", "web", 12)] };
        let answers: Vec<_> =
            [Some(Answer::End(list())), between, Some(Answer::Silence(then))].into_iter().flatten().collect();
        let heard = Heard::of(&answers);
        held(&heard.script).changes = Some(11);
        assert_eq!(heard.all(answers.len()).await.0, expected);
    }
    // Nobody can say whether what is gone was ever there.
    let gone = [list(), vec![line("DELETED", "web", 11)]].concat();
    let (said, error, asked) =
        Heard::of(&[Answer::End(gone), Answer::Broken, Answer::Silence(list())]).all(3).await;
    assert_eq!((said.as_str(), error), ("[+]-([)+]", None), "{asked:?}");
    // What makes no sense may be the newest of a list, wherever it stands; but what is said after the list is newer.
    let unread = [vec![line("ADDED", "", 1)], list()].concat();
    let answers = [Answer::End(unread.clone()), Answer::Broken, Answer::Silence(list())];
    assert_eq!(Heard::of(&answers).all(3).await.0, "[?+]([)+]");
    let then = [unread, vec![line("MODIFIED", "web", 11)]].concat();
    let answers = [Answer::End(then), Answer::Broken, Answer::Silence(Vec::new())];
    let (said, _, asked) = Heard::of(&answers).all(3).await;
    assert!(said == "[?+]+()" && asked[2].1.contains("resourceVersion=11"), "{said} {asked:?}");
    // Nobody was cut off: another server answers behind the same address.
    let mark = json!({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "9"}}});
    let heard = Heard::of(&[Answer::Silence([list(), vec![mark]].concat()), Answer::Silence(list())]);
    assert_eq!(heard.all(2).await.0, "[+][+]");
}
