//! Answers that are read while they come, and so never lie in memory whole.

use std::io::{self, Read};

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::{
    sync::mpsc,
    task::spawn_blocking,
    time::{Instant, timeout, timeout_at},
};
use weft_core::registry::RegistryError;

use super::{Answer, Call, HttpClient, broken_off, late, too_long};

/// How many parts of an answer may wait to be read.
const WAITING: usize = 4;
/// How many times as long as the head, or a part after another, the whole answer may take.
const WHOLE: u32 = 12;

impl HttpClient {
    /// Has the answer to a call read while it comes, by `read`, on a thread where that may wait. The call's time is that
    /// of the head, and of each silence within the body; all of it may take twelve times as long. Returns what was made of
    /// it and its length in bytes, or the answer whole where its status says that it is another one.
    ///
    /// # Errors
    /// When there is no answer in time, it breaks off, is longer than the server may answer, or is not what `read` expects.
    pub async fn read<T: Send + 'static>(
        &self,
        call: Call,
        read: impl FnOnce(&HeaderMap, &mut dyn Read) -> Result<T, serde_json::Error> + Send + 'static,
    ) -> Result<Result<(T, usize), Answer>, RegistryError> {
        let (what, within, secrets) = (call.what(), call.within, call.secrets.clone());
        let until = Instant::now() + within * WHOLE;
        let response = timeout(within, self.open(call)).await.unwrap_or_else(|_| Err(late(&what, within)))?;
        if !response.status().is_success() {
            let whole = timeout(within, self.whole(response, &what, secrets)).await;
            return whole.unwrap_or_else(|_| Err(late(&what, within))).map(Err);
        }
        let (head, mut body) = response.into_parts();
        let (parts, waiting) = mpsc::channel(WAITING);
        let headers = head.headers.clone();
        let reading = spawn_blocking(move || read(&headers, &mut Parts { waiting, part: Bytes::new() }));
        let mut length = 0;
        let passing_on = async {
            while let Some(part) = timeout(within, body.frame()).await.map_err(|_| late(&what, within))? {
                let part = part.map_err(|error| broken_off(&what, &error))?;
                let Ok(part) = part.into_data() else { continue };
                length += part.len();
                if length > self.server.max_answer {
                    return Err(too_long(&what, self.server.max_answer));
                }
                // Who stopped reading says why.
                if parts.send(part).await.is_err() {
                    return Ok(());
                }
            }
            Ok(())
        };
        let passed = timeout_at(until, passing_on).await.unwrap_or_else(|_| Err(late(&what, within * WHOLE)));
        drop(parts);
        let read = reading.await;
        passed?;
        let answer = Answer {
            status: head.status,
            headers: head.headers,
            body: Bytes::new(),
            what: what.as_str().into(),
            secrets,
        };
        match read {
            Ok(read) => Ok(Ok((read.map_err(|error| answer.malformed(error))?, length))),
            // The runtime ends.
            Err(_) => Err(broken_off(&what, &io::Error::from(io::ErrorKind::Interrupted))),
        }
    }

    pub(super) async fn whole(
        &self,
        response: Response<Incoming>,
        what: &str,
        secrets: super::Secrets,
    ) -> Result<Answer, RegistryError> {
        let longest = self.server.max_answer;
        let (head, body) = response.into_parts();
        let body = http_body_util::Limited::new(body, longest).collect().await;
        let body = body.map_err(|error| match error.is::<http_body_util::LengthLimitError>() {
            true => too_long(what, longest),
            false => broken_off(what, &*error),
        })?;
        let (status, headers) = (head.status, head.headers);
        Ok(Answer { status, headers, body: body.to_bytes(), what: what.into(), secrets })
    }
}

/// The parts of a body one after the other, as they come.
struct Parts {
    waiting: mpsc::Receiver<Bytes>,
    part: Bytes,
}

impl Read for Parts {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.part.is_empty() {
            match self.waiting.blocking_recv() {
                Some(part) => self.part = part,
                None => return Ok(0),
            }
        }
        let length = into.len().min(self.part.len());
        into[..length].copy_from_slice(&self.part.split_to(length));
        Ok(length)
    }
}
