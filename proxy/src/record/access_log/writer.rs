//! The one thread that writes.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::{
        Arc,
        atomic::Ordering::Relaxed,
        mpsc::{Receiver, SyncSender},
    },
    time::{Duration, Instant},
};

use super::Shared;

/// How often the file is compared with what its path leads to.
const LOOK: Duration = Duration::from_secs(1);

/// What the writer is told.
#[derive(Debug)]
pub(super) enum Message {
    /// Write these.
    Lines(Vec<u8>),
    /// See whether the file is to be opened anew.
    Look,
    /// Say when everything before this is written.
    Report(SyncSender<()>),
}

/// Where lines go.
#[derive(Debug)]
pub(super) enum Output {
    /// Standard output.
    Stdout,
    /// A file, and when it was last compared with its path.
    File { path: PathBuf, file: File, looked: Instant },
}

impl Output {
    pub(super) fn stdout() -> Self {
        Self::Stdout
    }

    pub(super) fn file(path: PathBuf) -> io::Result<Self> {
        Ok(Self::File { file: open(&path)?, path, looked: Instant::now() })
    }

    /// Opens the file anew if it was moved away, or at once if it is `told`. When that fails the old one stays: better a
    /// log in a moved file than none.
    fn look(&mut self, told: bool) -> io::Result<()> {
        let Self::File { path, file, looked } = self else { return Ok(()) };
        if !told && looked.elapsed() < LOOK {
            return Ok(());
        }
        *looked = Instant::now();
        let same = |there: &std::fs::Metadata, here: &std::fs::Metadata| {
            (there.dev(), there.ino()) == (here.dev(), here.ino())
        };
        let is_there = std::fs::metadata(&*path)
            .is_ok_and(|there| file.metadata().is_ok_and(|here| same(&there, &here)));
        if !is_there {
            *file = open(path)?;
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(bytes)?;
                stdout.flush()
            }
            Self::File { file, .. } => file.write_all(bytes),
        }
    }
}

fn open(path: &PathBuf) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

/// Starts the thread; it ends when the last sender is gone.
pub(super) fn start(mut output: Output, receiver: Receiver<Message>, shared: Arc<Shared>) -> io::Result<()> {
    let thread = std::thread::Builder::new().name("weft-access-log".into());
    thread.spawn(move || {
        let mut failing = false;
        for message in receiver {
            let looked = output.look(shared.reopen.swap(false, Relaxed));
            let written = match message {
                Message::Lines(lines) => {
                    let written = output.write(&lines);
                    shared.put_spare(lines);
                    written
                }
                Message::Look => Ok(()),
                Message::Report(done) => {
                    let _ = done.try_send(());
                    Ok(())
                }
            };
            let result = looked.and(written);
            if let Err(error) = &result {
                shared.failed_writes.fetch_add(1, Relaxed);
                if !failing {
                    tracing::error!(%error, "the access log cannot be written");
                }
            }
            failing = result.is_err();
        }
    })?;
    Ok(())
}
