//! What a stream's task says, as the body of the answer (gRPC over HTTP/2: `PROTOCOL-HTTP2.md` of grpc/grpc).
//!
//! Each message is encoded into a buffer of just its length, which ends with it. A buffer that is used again keeps the
//! size of the largest batch for as long as the stream lasts, and most of an agent's streams are idle after their first
//! list: that was a third of what an agent cost the hub.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response, header::CONTENT_TYPE};
use http_body::{Body, Frame};
use prost::Message;
use tokio::sync::mpsc;
use tonic::Status;
use weft_core::control::message::ServerMessage;

/// Before each message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// The messages as they come, and then how the call ended.
#[derive(Debug)]
pub(super) struct Outgoing {
    words: mpsc::Receiver<Result<ServerMessage, Status>>,
    ended: bool,
}

impl Outgoing {
    /// The answer to a call, whose messages come from `words` until that closes or a status ends it.
    pub(super) fn answer(
        words: mpsc::Receiver<Result<ServerMessage, Status>>,
    ) -> Response<tonic::body::Body> {
        let mut response = Response::new(tonic::body::Body::new(Self { words, ended: false }));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        response
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let status = match ready!(self.words.poll_recv(cx)) {
            Some(Ok(message)) => return Poll::Ready(Some(framed(&message).map(Frame::data))),
            Some(Err(status)) => status,
            None => Status::ok(""),
        };
        self.ended = true;
        let mut trailers = HeaderMap::new();
        Poll::Ready(Some(status.add_header(&mut trailers).map(|()| Frame::trailers(trailers))))
    }
}

fn framed(message: &ServerMessage) -> Result<Bytes, Status> {
    let length = message.encoded_len();
    let told = u32::try_from(length).map_err(|_| Status::internal("a message of more than 4 GiB"))?;
    let mut framed = BytesMut::with_capacity(PREFIX + length);
    framed.put_u8(0);
    framed.put_u32(told);
    message.encode(&mut framed).map_err(|fault| Status::internal(fault.to_string()))?;
    Ok(framed.freeze())
}
