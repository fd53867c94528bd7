//! How long is waited for what may never come.
//!
//! What is sent into a network that is cut is lost, and sent again by the kernel after pauses that double: when the cut is
//! over, it may take as long again until the next try. So nobody waits for an old try where a new one may be quicker.

use std::{io, pin::pin, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream::FuturesUnordered};
use http_body_util::BodyExt;
use hyper::body::Body;
use hyper_util::client::legacy::connect::HttpConnector;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};
use weft_core::registry::RegistryError;

use super::jittered;

/// How long a connection may take to be made: the kernel asks a second time after one second.
pub(crate) const CONNECT: Duration = Duration::from_secs(2);
/// How long a server's kernel may leave unacknowledged what was sent to it. How busy the server itself is does not matter.
const UNACKNOWLEDGED: Duration = Duration::from_secs(7);
/// How long a connection may be silent before the kernel asks whether there is still somebody, how often it then asks, and
/// how many times: together as long as above.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(4), Duration::from_secs(1), 3);
/// How long an answer that has begun may be silent. How long it is does not matter.
pub(super) const SILENCE: Duration = Duration::from_secs(10);
/// Of an answer that comes in drops, fewer bytes a second than this are silence: no link is so slow, and whoever waits for
/// the rest would not ask the server that is well again.
const SLOWEST: u64 = 1000;
/// How long an answer may take from its beginning, however little of it comes at a time: 64 MiB at 2 Mbit/s.
pub(super) const WHOLE: Duration = Duration::from_secs(300);
/// How soon a question that is not answered is put once more, before it is spread; spread, it is sooner than a connection
/// is given up.
const AGAIN: Duration = Duration::from_millis(1500);

/// A connector that knows within seconds that nobody is there, and leaves a server that is merely slow its time.
pub(crate) fn connector() -> HttpConnector {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT));
    tcp.set_keepalive(Some(KEEPALIVE.0));
    tcp.set_keepalive_interval(Some(KEEPALIVE.1));
    tcp.set_keepalive_retries(Some(KEEPALIVE.2));
    #[cfg(target_os = "linux")]
    tcp.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
    tcp
}

/// The same for a connection that is made already.
///
/// # Errors
/// When the kernel does not take the times.
pub(crate) fn end_when_dead(tcp: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(tcp);
    let (idle, interval, retries) = KEEPALIVE;
    let keepalive = TcpKeepalive::new().with_time(idle).with_interval(interval).with_retries(retries);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    Ok(())
}

/// Why there is no whole body.
pub(super) enum Broken<E> {
    /// Nothing of it came for too long.
    Silent,
    /// It broke off.
    Off(E),
}

/// How a body comes: what is waited for it counts, and what its reader takes does not.
pub(super) struct Flow {
    silence: Duration,
    /// Since enough of it came the last time.
    waited: Duration,
    came: u64,
}

impl Flow {
    /// Of a body that may be silent for so long.
    pub(super) fn new(silence: Duration) -> Self {
        Self { silence, waited: Duration::ZERO, came: 0 }
    }

    /// The next of the body's data; none at its end.
    ///
    /// # Errors
    /// When too little of it comes, or it breaks off.
    pub(super) async fn next<B: Body<Data = Bytes> + Unpin>(
        &mut self,
        body: &mut B,
    ) -> Result<Option<Bytes>, Broken<B::Error>> {
        let began = Instant::now();
        let left = self.silence.saturating_sub(self.waited);
        let Some(frame) = timeout(left, body.frame()).await.map_err(|_| Broken::Silent)? else {
            return Ok(None);
        };
        let data = frame.map_err(Broken::Off)?.into_data().unwrap_or_default();
        self.waited += began.elapsed();
        self.came += u64::try_from(data.len()).unwrap_or(u64::MAX);
        if u128::from(self.came) * 1000 >= u128::from(SLOWEST) * self.silence.as_millis() {
            (self.waited, self.came) = (Duration::ZERO, 0);
        }
        Ok(Some(data))
    }
}

/// The whole of a body that is never silent for longer than this.
///
/// # Errors
/// When it is, or breaks off.
pub(super) async fn flowing<B: Body<Data = Bytes>>(
    body: B,
    silence: Duration,
) -> Result<Bytes, Broken<B::Error>> {
    let (mut body, mut flow, mut whole) = (pin!(body), Flow::new(silence), BytesMut::new());
    while let Some(data) = flow.next(&mut body).await? {
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}

/// The first answer to a question that is put again and again, each time on a connection of its own, while there is none.
/// A slow server may so answer the first, and one that is back after a cut answers the last.
///
/// # Errors
/// That of the last question, when none is left that is waited for, or `late` when there is no answer `within` the time.
pub(crate) async fn first_answer<T, F>(
    within: Duration,
    ask: impl Fn() -> F,
    late: impl FnOnce() -> RegistryError,
) -> Result<T, RegistryError>
where
    F: Future<Output = Result<T, RegistryError>>,
{
    let end = Instant::now() + within;
    let mut asked = FuturesUnordered::new();
    while Instant::now() < end {
        asked.push(ask());
        let again = end.min(Instant::now() + jittered(AGAIN));
        while let Ok(Some(answer)) = timeout_at(again, asked.next()).await {
            if answer.is_ok() || asked.is_empty() {
                return answer;
            }
        }
    }
    Err(late())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// Asks with the given answers, each after so many milliseconds; the last goes for all that follow.
    async fn asked(answers: &[(u64, Result<u8, &str>)]) -> (Result<u8, String>, Duration, u32) {
        let (count, begin) = (AtomicU32::new(0), Instant::now());
        let ask = || {
            let at = count.fetch_add(1, Ordering::Relaxed) as usize;
            let (after, answer) = answers[at.min(answers.len() - 1)];
            async move {
                tokio::time::sleep(Duration::from_millis(after)).await;
                answer.map_err(|why| RegistryError::Unreachable(why.into()))
            }
        };
        let late = || RegistryError::Unreachable("late".into());
        let answer = first_answer(Duration::from_secs(10), ask, late).await;
        (answer.map_err(|error| error.to_string()), begin.elapsed(), count.load(Ordering::Relaxed))
    }

    #[tokio::test(start_paused = true)]
    async fn who_hangs_is_asked_again_and_who_is_slow_is_waited_for() {
        let (answer, took, times) = asked(&[(60_000, Ok(1)), (10, Ok(2))]).await;
        assert_eq!((answer, times), (Ok(2), 2));
        assert!(took < CONNECT, "{took:?}");
        let (answer, took, _) = asked(&[(9_000, Ok(1))]).await;
        assert_eq!(answer, Ok(1));
        assert!(took < Duration::from_secs(9) + CONNECT, "{took:?}");
        let (answer, took, times) = asked(&[(60_000, Ok(1))]).await;
        assert!(answer.unwrap_err().ends_with("late") && took < Duration::from_secs(11) && times < 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_told_at_once_and_a_connection_that_is_given_up_hides_no_later_one() {
        let (answer, took, times) = asked(&[(5, Err("refused"))]).await;
        assert!(answer.unwrap_err().ends_with("refused") && took < Duration::from_millis(50) && times == 1);
        let given_up = u64::try_from(CONNECT.as_millis()).unwrap();
        let (answer, _, _) = asked(&[(given_up, Err("late")), (1_000, Ok(2))]).await;
        assert_eq!(answer, Ok(2));
    }
}
