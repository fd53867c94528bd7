//! `Expect: 100-continue` (RFC 9110 §10.1.1): a caller that wants to know whether its request's body is welcome.
//!
//! The expectation is forwarded, and the body is kept back until the next hop answers it with 100, or with a final status,
//! so that the application decides, and a request that policy denies costs no body. Only asking for the body makes hyper
//! tell the caller to go on. A next hop that says nothing may not know of expectations: after [`PATIENCE`] the body goes,
//! as the caller itself might send it by then.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http::{HeaderMap, Request, StatusCode, header::EXPECT};
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::{Sleep, sleep};

use super::body::{Body, BodyError};

/// How long a next hop may be silent: what curl waits too.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whether the next hop has said that it wants the body. Atomic because hyper wants its callbacks to be `Send`.
#[derive(Debug, Default)]
struct Welcome {
    said: AtomicBool,
    waker: AtomicWaker,
}

impl Welcome {
    fn say(&self) {
        self.said.store(true, Relaxed);
        self.waker.wake();
    }
}

/// A body that is kept back until it is welcome.
#[derive(Debug)]
pub(crate) struct Held {
    body: Body,
    welcome: Arc<Welcome>,
    /// None once it goes.
    patience: Option<Pin<Box<Sleep>>>,
}

/// Whether the caller expects to be told to go on.
pub(crate) fn is_expected(headers: &HeaderMap) -> bool {
    headers.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Keeps the body of a request that is about to be sent back until it is welcome, if the caller expects that.
pub(crate) fn hold(request: Request<Body>) -> Request<Body> {
    if !is_expected(request.headers()) || request.body().is_end_stream() {
        return request;
    }
    let welcome = Arc::default();
    let patience = Some(Box::pin(sleep(PATIENCE)));
    request.map(|body| Body::Held(Box::new(Held { body, welcome, patience })))
}

/// As [`hold`], for a request that hyper sends, and whose interim responses only hyper sees.
pub(super) fn hold_for_hyper(request: Request<Body>) -> Request<Body> {
    let mut request = hold(request);
    if let Body::Held(held) = request.body() {
        let welcome = held.welcome.clone();
        hyper::ext::on_informational(&mut request, move |response| {
            if response.status() == StatusCode::CONTINUE {
                welcome.say();
            }
        });
    }
    request
}

impl Held {
    /// Whether it goes already.
    pub(super) fn goes(&self) -> bool {
        self.patience.is_none() || self.welcome.said.load(Relaxed)
    }

    /// The next hop wants it.
    pub(super) fn welcome(&self) {
        self.welcome.say();
    }

    pub(crate) fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(patience) = &mut self.patience {
            self.welcome.waker.register(context.waker());
            if !self.welcome.said.load(Relaxed) && patience.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            self.patience = None;
        }
        Pin::new(&mut self.body).poll_frame(context)
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
