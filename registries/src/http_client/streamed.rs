//! Answers that are read while they come, and so never lie in memory whole.

use std::io::{self, Read};

use bytes::Bytes;
use http::HeaderMap;
use tokio::{
    sync::mpsc,
    task::spawn_blocking,
    time::{Instant, timeout_at},
};
use weft_core::registry::RegistryError;

use super::{
    Answer, Call, HttpClient, SILENCE, WHOLE, broken_off, late,
    patience::{Broken, Flow},
    stopped, too_long,
};

/// How many parts of an answer may wait to be read.
const WAITING: usize = 4;

impl HttpClient {
    /// Has the answer to a call read while it comes, by `read`, on a thread where that may wait. It has the time of
    /// [`HttpClient::send`]. Returns what was made of it and its length in bytes, or the answer whole where its status says
    /// that it is another one.
    ///
    /// # Errors
    /// When there is no answer in time, it breaks off, is longer than the server may answer, or is not what `read` expects.
    pub async fn read<T: Send + 'static>(
        &self,
        call: Call,
        read: impl FnOnce(&HeaderMap, &mut dyn Read) -> Result<T, serde_json::Error> + Send + 'static,
    ) -> Result<Result<(T, usize), Answer>, RegistryError> {
        let (what, within, secrets) = (call.what(), call.within, call.secrets.clone());
        let (silence, most) = (SILENCE.min(within), within + WHOLE);
        let until = Instant::now() + most;
        let response = self.begun(call, &what).await?;
        if !response.status().is_success() {
            let whole = timeout_at(until, self.whole(response, &what, silence, secrets)).await;
            return whole.unwrap_or_else(|_| Err(late(&what, most))).map(Err);
        }
        let (head, mut body) = response.into_parts();
        let (parts, waiting) = mpsc::channel(WAITING);
        let headers = head.headers.clone();
        let reading = spawn_blocking(move || read(&headers, &mut Parts { waiting, part: Bytes::new() }));
        let mut length = 0;
        let passing_on = async {
            let mut flow = Flow::new(silence);
            let broken = |broken| match broken {
                Broken::Silent => stopped(&what, silence),
                Broken::Off(error) => broken_off(&what, &error),
            };
            while let Some(part) = flow.next(&mut body).await.map_err(broken)? {
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
        let passed = timeout_at(until, passing_on).await.unwrap_or_else(|_| Err(late(&what, most)));
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
