//! The access log: a line of JSON for every request, at a cost that does not depend on the disk.
//!
//! A worker formats lines into its own buffer and hands it over when it is full or a tenth of a second old; one thread
//! writes. The channel between them is bounded and nobody waits on it: when the disk is too slow, whole buffers are
//! dropped and their lines counted. Traffic never pays for a log.

mod line;
mod writer;

use std::{
    cell::RefCell,
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        mpsc::{SyncSender, sync_channel},
    },
    time::{Duration, Instant},
};

use tokio::sync::Notify;
use weft_core::context::Outcome;

pub(super) use line::shared_part;

use line::LineFormat;
use writer::{Message, Output};

/// A buffer is handed over when it has so many bytes.
const FULL: usize = 64 * 1024;
/// So many buffers wait for the writer.
const WAITING: usize = 64;
/// So many empty ones are kept.
const SPARE: usize = 8;

/// Where the access log goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AccessLogTarget {
    /// Nowhere.
    #[default]
    Off,
    /// Standard output.
    Stdout,
    /// A file, appended to.
    File(PathBuf),
}

/// What writer and workers share.
#[derive(Debug, Default)]
struct Shared {
    /// Written buffers, to be filled again: fresh memory costs a page fault every four kilobytes.
    spare: Mutex<Vec<Vec<u8>>>,
    dropped: AtomicU64,
    failed_writes: AtomicU64,
    reopen: AtomicBool,
}

impl Shared {
    /// An empty buffer. A worker that finds the lock held takes a new one instead of waiting.
    fn take_spare(&self) -> Vec<u8> {
        let spare = self.spare.try_lock().ok().and_then(|mut spare| spare.pop());
        spare.unwrap_or_else(|| Vec::with_capacity(FULL + FULL / 16))
    }

    /// Keeps a buffer, unless there are enough or it has grown for one huge line.
    fn put_spare(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        if let Ok(mut spare) = self.spare.lock()
            && spare.len() < SPARE
            && buffer.capacity() <= 2 * FULL
        {
            spare.push(buffer);
        }
    }
}

/// The shared side.
#[derive(Debug)]
pub(super) struct AccessLog {
    sender: Option<SyncSender<Message>>,
    shared: Arc<Shared>,
}

impl AccessLog {
    pub(super) fn open(target: &AccessLogTarget) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let output = match target {
            AccessLogTarget::Off => return Ok(Self { sender: None, shared }),
            AccessLogTarget::Stdout => Output::stdout(),
            AccessLogTarget::File(path) => Output::file(path.clone())?,
        };
        let (sender, receiver) = sync_channel(WAITING);
        writer::start(output, receiver, shared.clone())?;
        Ok(Self { sender: Some(sender), shared })
    }

    pub(super) fn buffer(&self) -> Option<LogBuffer> {
        let sender = self.sender.clone()?;
        Some(LogBuffer {
            lines: RefCell::new(Lines { bytes: Vec::new(), count: 0, format: LineFormat::new() }),
            filled: Notify::new(),
            sender,
            shared: self.shared.clone(),
        })
    }

    pub(super) fn dropped(&self) -> u64 {
        self.shared.dropped.load(Relaxed)
    }

    pub(super) fn failed_writes(&self) -> u64 {
        self.shared.failed_writes.load(Relaxed)
    }

    pub(super) fn reopen(&self) {
        self.shared.reopen.store(true, Relaxed);
        if let Some(sender) = &self.sender {
            // A full channel has a message that makes the writer look.
            let _ = sender.try_send(Message::Look);
        }
    }

    pub(super) fn flush(&self, longest: Duration) -> bool {
        let Some(sender) = &self.sender else { return true };
        let end = Instant::now() + longest;
        let (done, written) = sync_channel(1);
        let mut message = Message::Report(done);
        while let Err(std::sync::mpsc::TrySendError::Full(back)) = sender.try_send(message) {
            if Instant::now() >= end {
                return false;
            }
            message = back;
            std::thread::sleep(Duration::from_millis(1));
        }
        written.recv_timeout(end.saturating_duration_since(Instant::now())).is_ok()
    }
}

/// A worker's side.
#[derive(Debug)]
pub(super) struct LogBuffer {
    lines: RefCell<Lines>,
    filled: Notify,
    sender: SyncSender<Message>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Lines {
    bytes: Vec<u8>,
    count: u64,
    format: LineFormat,
}

impl LogBuffer {
    /// Adds a line; `shared` is the [`shared_part`] of the outcome's series.
    pub(super) fn line(&self, outcome: &Outcome<'_>, shared: &[u8], ended: Instant) {
        let mut lines = self.lines.borrow_mut();
        let Lines { bytes, count, format } = &mut *lines;
        if bytes.is_empty() {
            self.filled.notify_one();
        }
        format.write(bytes, outcome, shared, ended);
        *count += 1;
        if bytes.len() >= FULL {
            self.hand_over(&mut lines);
        }
    }

    /// Waits for the first line in an empty buffer.
    pub(super) async fn filled(&self) {
        self.filled.notified().await;
    }

    pub(super) fn flush(&self) {
        self.hand_over(&mut self.lines.borrow_mut());
    }

    fn hand_over(&self, lines: &mut Lines) {
        if lines.bytes.is_empty() {
            return;
        }
        let full = std::mem::replace(&mut lines.bytes, self.shared.take_spare());
        let count = std::mem::take(&mut lines.count);
        if self.sender.try_send(Message::Lines(full)).is_err() {
            self.shared.dropped.fetch_add(count, Relaxed);
        }
    }
}

impl Drop for LogBuffer {
    fn drop(&mut self) {
        self.flush();
    }
}
