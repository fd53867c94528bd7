//! Finding out that a peer is gone which did not say so, while requests wait for it.
//!
//! Another agent is sent a PING, and given up when that stays unanswered. Applications get none: servers of gRPC allow one
//! in five minutes and end the connection after the third
//! (<https://github.com/grpc/proposal/blob/master/A8-client-side-keepalive.md>), and one on this host needs none: its
//! kernel tells when it is gone. The kernel of another host is asked for a connection. It gives one for an application
//! that works on a request for as long as it likes, or refuses one: both mean that a host is there. Two things that
//! does not tell:
//!
//! * Linux answers nothing where the queue of connections to be accepted is full. So a process that stands still while
//!   others connect to it looks like a host that is gone, and silence counts only when it lasts for half a minute.
//! * An address may stand for several hosts (a load balancer, a port of every node). Any of them answers, and that the
//!   one behind this very connection is gone is found out only by something that is sent to it and that it does not
//!   acknowledge for the kernel's quarter of an hour.

use std::{
    cell::Cell,
    future::{Future, pending},
    io,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    net::TcpStream,
    time::{Instant, Sleep, sleep},
};

/// How another agent is asked: soon, and once.
const PING: Patience = Patience {
    quiet: Duration::from_millis(500),
    longest_quiet: Duration::from_millis(500),
    answer: Duration::from_secs(1),
    times: 1,
};
/// How the kernel of another host is asked: for long, because a process that stands still may come back, and several
/// times, because each begins with packets in quick succession. An application that is silent for hours should not be
/// bothered with connections all the time.
const CONNECT: Patience = Patience {
    quiet: Duration::from_secs(5),
    longest_quiet: Duration::from_secs(60),
    answer: Duration::from_secs(10),
    times: 3,
};

/// How long silence is borne.
#[derive(Debug)]
struct Patience {
    /// How long nothing may be heard before the peer is asked. Doubled with every answer that is all that is heard.
    quiet: Duration,
    /// The most that this comes to.
    longest_quiet: Duration,
    /// How long the answer may take.
    answer: Duration,
    /// How often it is asked before it is given up.
    times: u32,
}

/// How a peer is asked whether it is there.
pub(super) enum Question {
    /// By a PING.
    Ping(h2::PingPong),
    /// By a connection to its address, which is closed at once.
    Connect(SocketAddr, Option<Pin<Box<dyn Future<Output = ()>>>>),
}

/// Whether a peer is silent for too long.
pub(super) struct Silence {
    question: Question,
    /// Raised by whatever is read.
    heard: Rc<Cell<bool>>,
    /// Whether an answer is due.
    asked: bool,
    /// How often it was asked since it was heard, or answered.
    times: u32,
    quiet: Duration,
    /// Whether `tick` counts.
    waiting: bool,
    tick: Pin<Box<Sleep>>,
}

impl Silence {
    /// `heard` is raised by whatever is read from the peer.
    pub(super) fn new(question: Question, heard: Rc<Cell<bool>>) -> Self {
        let quiet = question.patience().quiet;
        Self { question, heard, asked: false, times: 0, quiet, waiting: false, tick: Box::pin(sleep(quiet)) }
    }

    /// Ready when the peer was silent for too long while requests waited for it. `idle` if none does.
    pub(super) fn poll(&mut self, context: &mut Context<'_>, idle: bool) -> Poll<()> {
        let patience = self.question.patience();
        if self.asked && self.question.poll_answer(context).is_ready() {
            (self.asked, self.times) = (false, 0);
            self.quiet = (self.quiet * 2).min(patience.longest_quiet);
            self.wait();
        }
        if idle {
            self.waiting = false;
            return Poll::Pending;
        }
        if !self.waiting {
            (self.waiting, self.quiet) = (true, patience.quiet);
            self.heard.set(false);
            self.wait();
        }
        while self.tick.as_mut().poll(context).is_ready() {
            if self.heard.replace(false) {
                (self.times, self.quiet) = (0, patience.quiet);
            } else if self.times >= patience.times {
                return Poll::Ready(());
            } else {
                self.times += 1;
                // One that is under way counts, and cannot be sent twice.
                self.asked |= self.question.ask();
                // To look for the answer.
                context.waker().wake_by_ref();
            }
            self.wait();
        }
        Poll::Pending
    }

    fn wait(&mut self) {
        let limit = if self.asked { self.question.patience().answer } else { self.quiet };
        self.tick.as_mut().reset(Instant::now() + limit);
    }
}

impl Question {
    fn patience(&self) -> &'static Patience {
        match self {
            Self::Ping(_) => &PING,
            Self::Connect(..) => &CONNECT,
        }
    }

    /// Asks. False if that cannot be done.
    fn ask(&mut self) -> bool {
        match self {
            Self::Ping(ping) => ping.send_ping(h2::Ping::opaque()).is_ok(),
            Self::Connect(address, asking) => {
                *asking = Some(Box::pin(is_there(*address)));
                true
            }
        }
    }

    /// Ready when the peer has answered. An error of a PING is the connection's, and ends it.
    fn poll_answer(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Ping(ping) => ping.poll_pong(context).map(drop),
            Self::Connect(_, asking) => {
                asking.as_mut().map_or(Poll::Pending, |asking| asking.as_mut().poll(context))
            }
        }
    }
}

/// Resolves when somebody at the address takes a connection, or refuses it, or when it cannot be found out: never as long
/// as nothing comes back, or only word that there is no way there.
async fn is_there(address: SocketAddr) {
    use io::ErrorKind::{HostUnreachable, NetworkUnreachable, TimedOut};
    let error = TcpStream::connect(address).await.err().map(|error| error.kind());
    if matches!(error, Some(HostUnreachable | NetworkUnreachable | TimedOut)) {
        pending::<()>().await;
    }
}
