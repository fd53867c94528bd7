//! One HTTP/2 connection of which we are the server: another agent's, or a local caller's.
//!
//! Requests come from `h2` straight to whoever answers them. Each has a task of its own, which stays small because the
//! answering future lies in a box that is gone as soon as the answer's head is there.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{
    Reason,
    server::{Builder, Connection, Handshake, SendResponse},
};
use http::{Request, Response, header::CONTENT_LENGTH};
use http_body::Body;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    body::{Arriving, BodyError},
    bounds,
    multiplexed::STREAM_WINDOW,
    pump::Pump,
};
use crate::{config::Limits, executor::LocalExecutor, fault::Fault};

/// How many bytes of one answer may wait to be written.
const MAX_UNSENT: usize = 256 * 1024;

/// A connection whose requests `answer` answers. Ends with the connection.
pub(crate) struct Streams<T, A> {
    state: State<T>,
    answer: A,
    /// How large the header of a request may be, if that is looked at here.
    header_bytes: Option<usize>,
    finishing: bool,
}

enum State<T> {
    Greeting(Handshake<T, Bytes>),
    Serving(Connection<T, Bytes>),
}

impl<T: AsyncRead + AsyncWrite + Unpin, A> Streams<T, A> {
    /// Each stream has its window, and the connection as much as all of them together, so that streams that nobody reads
    /// cannot stop the others.
    pub(crate) fn new(io: T, limits: &Limits, answer: A) -> Self {
        let handshake = Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(STREAM_WINDOW.saturating_mul(limits.streams))
            .max_concurrent_streams(limits.streams)
            .max_send_buffer_size(MAX_UNSENT)
            .max_header_list_size(limits.header_bytes.saturating_mul(bounds::READ_HEADERS))
            .data_frame_budget(bounds::UNREAD_FRAMES)
            .max_concurrent_reset_streams(bounds::REMEMBERED_RESETS)
            .reset_stream_duration(bounds::REMEMBERED_FOR)
            .max_local_error_reset_streams(bounds::BROKEN_STREAMS)
            // As many as may be under way can be given up at once.
            .max_pending_accept_reset_streams(limits.streams as usize)
            .handshake(io);
        Self { state: State::Greeting(handshake), answer, header_bytes: None, finishing: false }
    }

    /// Refuses requests whose header is larger than `limits` allow, as other faults are refused. Another agent has looked
    /// at its callers' headers itself, and added fields to them.
    pub(crate) fn of_caller(mut self, limits: &Limits) -> Self {
        self.header_bytes = Some(limits.header_bytes as usize);
        self
    }

    /// Takes nothing new, and ends when all is answered.
    pub(crate) fn finish(&mut self) {
        self.finishing = true;
        if let State::Serving(connection) = &mut self.state {
            connection.graceful_shutdown();
        }
    }
}

impl<T, A, F, B> Future for Streams<T, A>
where
    T: AsyncRead + AsyncWrite + Unpin,
    A: FnMut(Request<Arriving>) -> F + Unpin,
    F: Future<Output = Response<B>> + 'static,
    B: Body<Data = Bytes, Error = BodyError> + Unpin + 'static,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        loop {
            match &mut this.state {
                State::Greeting(handshake) => {
                    let Ok(mut connection) = ready!(Pin::new(handshake).poll(context)) else {
                        return Poll::Ready(());
                    };
                    if this.finishing {
                        connection.graceful_shutdown();
                    }
                    this.state = State::Serving(connection);
                }
                State::Serving(connection) => {
                    let Some(Ok((mut request, respond))) = ready!(connection.poll_accept(context)) else {
                        return Poll::Ready(());
                    };
                    if this.header_bytes.is_some_and(|most| header_bytes(&request) > most) {
                        request.extensions_mut().insert(Fault::HeaderTooLarge);
                    }
                    let answer = Box::pin((this.answer)(request.map(Arriving::Stream)));
                    LocalExecutor.spawn(exchange(answer, respond));
                }
            }
        }
    }
}

/// The size of a header as HTTP/2 counts it (RFC 9113 §6.5.2), less what all have.
fn header_bytes<B>(request: &Request<B>) -> usize {
    const FIELD: usize = 32;
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    let fields = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD);
    target + fields.sum::<usize>()
}

/// Waits for the answer and sends it, until the caller gives up.
async fn exchange<F, B>(answer: Pin<Box<F>>, mut respond: SendResponse<Bytes>)
where
    F: Future<Output = Response<B>>,
    B: Body<Data = Bytes, Error = BodyError> + Unpin,
{
    let Some(mut response) = until_reset(answer, &mut respond).await else { return };
    let body_ended = response.body().is_end_stream();
    if !body_ended
        && !response.headers().contains_key(CONTENT_LENGTH)
        && let Some(length) = response.body().size_hint().exact()
    {
        response.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
    let (head, body) = response.into_parts();
    match respond.send_response(Response::from_parts(head, ()), body_ended) {
        // A caller that gave up is seen by whoever records the body's end.
        Ok(stream) if !body_ended => drop(Pump::new(stream, body, Reason::INTERNAL_ERROR).await),
        Ok(_) => {}
        Err(_) => respond.send_reset(Reason::INTERNAL_ERROR),
    }
}

/// The answer; none if the caller resets the stream before.
async fn until_reset<F: Future>(
    mut answer: Pin<Box<F>>,
    respond: &mut SendResponse<Bytes>,
) -> Option<F::Output> {
    poll_fn(|context| match answer.as_mut().poll(context) {
        Poll::Ready(answer) => Poll::Ready(Some(answer)),
        Poll::Pending => respond.poll_reset(context).map(|_| None),
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::{super::body::Body as AnyBody, *};

    fn size_of_future<A, B, F: Future>(_: fn(A, B) -> F) -> usize {
        size_of::<F>()
    }

    /// The task of a request moves it several times.
    #[test]
    fn an_exchange_stays_small() {
        let size = size_of_future(exchange::<std::future::Ready<Response<AnyBody>>, AnyBody>);
        assert!(size <= LIMIT, "{size}");
    }

    const LIMIT: usize = 768;
}
