//! A writer that never waits: lines go through a bounded queue to a thread that writes them.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use tracing_subscriber::fmt::MakeWriter;

/// How many lines may wait.
const QUEUE: usize = 4096;
/// How long the end of the process waits for the last lines.
const LAST_LINES: Duration = Duration::from_secs(1);

enum Message {
    Line(Vec<u8>),
    /// All before it are written when this is answered.
    Flush(SyncSender<()>),
}

/// Takes lines, one `write` each. Clones share one queue.
#[derive(Clone)]
pub(super) struct Lines {
    queue: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
}

/// Waits, when dropped, until the lines so far are written, but for a second at most.
#[must_use = "the last lines are lost when it is dropped at once"]
#[derive(Debug)]
pub struct Flush(SyncSender<Message>);

/// Starts the thread that writes to `out`.
pub(super) fn start(out: impl Write + Send + 'static) -> io::Result<(Lines, Flush)> {
    let (queue, messages) = sync_channel(QUEUE);
    let dropped = Arc::new(AtomicU64::new(0));
    let counted = dropped.clone();
    thread::Builder::new().name("weft-log".into()).spawn(move || write(out, &messages, &counted))?;
    Ok((Lines { queue: queue.clone(), dropped }, Flush(queue)))
}

/// Standard error has no second place to complain to: what cannot be written is gone.
fn write(mut out: impl Write, messages: &Receiver<Message>, dropped: &AtomicU64) {
    for message in messages {
        match message {
            Message::Line(line) => drop(out.write_all(&line)),
            Message::Flush(done) => {
                let _flushed = out.flush();
                // Who asked may have given up.
                let _told = done.try_send(());
            }
        }
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let _written = writeln!(
                out,
                "weft: {lost} lines of this log were dropped: they came too fast to be written"
            );
        }
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.queue.try_send(Message::Line(line.to_vec())).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Drop for Flush {
    fn drop(&mut self) {
        let (done, written) = sync_channel(1);
        // A full queue means that nobody reads the log: its end is not waited for.
        if self.0.try_send(Message::Flush(done)).is_ok() {
            let _in_time = written.recv_timeout(LAST_LINES);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Mutex, MutexGuard},
        time::Instant,
    };

    use super::*;

    /// Stands still while its lock is held.
    #[derive(Clone, Default)]
    struct Stalling(Arc<Mutex<Vec<u8>>>);

    impl Stalling {
        fn held(&self) -> MutexGuard<'_, Vec<u8>> {
            self.0.lock().unwrap()
        }
    }

    impl Write for Stalling {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.held().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_are_written_in_order_and_the_last_ones_before_the_end() {
        let out = Stalling::default();
        let (mut lines, flush) = start(out.clone()).unwrap();
        for line in ["one\n", "two\n"] {
            lines.write_all(line.as_bytes()).unwrap();
        }
        drop(flush);
        assert_eq!(*out.held(), b"one\ntwo\n");
    }

    #[test]
    fn a_log_that_stands_still_holds_up_nobody_and_says_later_what_was_lost() {
        let out = Stalling::default();
        let (mut lines, flush) = start(out.clone()).unwrap();
        let held = out.held();
        // Would not end if a full queue were waited for.
        for _ in 0..QUEUE + 100 {
            lines.write_all(b"x\n").unwrap();
        }
        drop(held);
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let text = String::from_utf8(out.held().clone()).unwrap();
            let written = text.lines().filter(|line| *line == "x").count();
            let lost = text.lines().filter_map(|line| line.strip_prefix("weft: ")?.split(' ').next());
            let lost: usize = lost.map(|number| number.parse::<usize>().unwrap()).sum();
            if lost > 0 && written + lost == QUEUE + 100 {
                break;
            }
            assert!(Instant::now() < deadline, "{written} written, {lost} lost");
            thread::yield_now();
        }
        drop(flush);
    }
}
