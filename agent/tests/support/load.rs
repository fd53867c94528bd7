//! Callers that never retry.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use super::{Application, Connection, Response, until};

/// Calls again and again on kept-alive connections until it is stopped. Never retries: an error is a failure, except
/// that a server may close between two requests, which it announces with `Connection: close`.
pub struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    callers: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    /// Calls as fast as answers come.
    pub fn start(outbound: SocketAddr, host: &str, callers: usize) -> Self {
        Self::with("GET", outbound, host, callers, Duration::ZERO)
    }

    /// The same with requests that an agent must not send twice either, so that a cut one is a failed one.
    pub fn once_only(outbound: SocketAddr, host: &str, callers: usize) -> Self {
        Self::with("POST", outbound, host, callers, Duration::ZERO)
    }

    /// Calls so often a second, all callers together, or as often as the machine allows.
    pub fn paced(outbound: SocketAddr, host: &str, callers: u32, per_second: u32) -> Self {
        let every = Duration::from_secs(callers.into()) / per_second;
        Self::with("GET", outbound, host, usize::try_from(callers).unwrap(), every)
    }

    fn with(method: &'static str, outbound: SocketAddr, host: &str, callers: usize, every: Duration) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let callers = (0..callers)
            .map(|_| {
                let (stop, answered, host) = (stop.clone(), answered.clone(), host.to_owned());
                std::thread::spawn(move || {
                    let (mut connection, mut failures) = (None, Vec::new());
                    let mut due = Instant::now();
                    while !stop.load(Ordering::SeqCst) {
                        std::thread::sleep(due.saturating_duration_since(Instant::now()));
                        // Who is late is not the later for it: what was missed is made up for.
                        due += every;
                        let mut open =
                            connection.take().unwrap_or_else(|| Connection::open(outbound).unwrap());
                        match open.send(method, &host, "/") {
                            Ok(answer) => {
                                answered.fetch_add(1, Ordering::SeqCst);
                                if answer.status != 200 {
                                    failures.push(format!("{answer:?}"));
                                }
                                connection = (answer.header("connection") != Some("close")).then_some(open);
                            }
                            Err(error) => failures.push(error.to_string()),
                        }
                    }
                    failures
                })
            })
            .collect();
        Self { stop, answered, callers }
    }

    /// How many were answered.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::SeqCst)
    }

    /// Waits until so many more are answered.
    pub fn go_on(&self, more: u64) {
        let until_then = self.answered() + more;
        until("the load goes on", || (self.answered() >= until_then).then_some(()));
    }

    /// Stops and returns what failed.
    pub fn end(self) -> Vec<String> {
        self.stop.store(true, Ordering::SeqCst);
        self.callers.into_iter().flat_map(|caller| caller.join().unwrap()).collect()
    }
}

/// Answers that go on until their applications end them.
pub struct Streams(Vec<JoinHandle<io::Result<Response>>>);

impl Streams {
    /// Opens so many, and waits until the applications have them all.
    pub fn open(
        outbound: SocketAddr,
        host: &'static str,
        count: usize,
        applications: &[Application],
    ) -> Self {
        let requests = || applications.iter().map(Application::requests).sum::<u64>();
        let all = requests() + count as u64;
        let stream = |_| std::thread::spawn(move || Connection::open(outbound)?.get(host, "/stream"));
        let streams = Self((0..count).map(stream).collect());
        until("all streams are open", || (requests() >= all).then_some(()));
        streams
    }

    /// Lets them end; every one must still be open, and come to its end whole.
    pub fn end(self, applications: &[Application]) {
        let cut = self.0.iter().filter(|stream| stream.is_finished()).count();
        assert_eq!(cut, 0, "streams ended before their application ended them");
        applications.iter().for_each(Application::end_streams);
        for stream in self.0 {
            let answer = stream.join().unwrap().unwrap();
            assert!(answer.status == 200 && answer.body.ends_with("end\n"), "{:?}", answer.status);
        }
    }
}
