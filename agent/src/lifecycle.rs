//! Phases of a process, and the signals that move it from one to the next.
//!
//! SIGTERM or SIGINT first drains, and the second one ends; SIGHUP reloads. systemd hears of every phase.

use std::fmt;

use serde::{Deserialize, Serialize};
use tokio::{
    signal::unix::{Signal as SignalStream, SignalKind, signal},
    sync::watch,
};

/// Where in its life a process is. Phases only ever move forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Something that must come up first is missing.
    Starting,
    /// Ready: takes new work.
    Serving,
    /// Takes no new work and finishes what it has.
    Draining,
    /// Done.
    Stopped,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
        })
    }
}

/// The phase that a process is in, for all who must know. Clones are one.
#[derive(Clone, Debug)]
pub struct Lifecycle(watch::Sender<Phase>);

impl Default for Lifecycle {
    fn default() -> Self {
        Self(watch::channel(Phase::Starting).0)
    }
}

impl Lifecycle {
    /// The phase now.
    #[must_use]
    pub fn phase(&self) -> Phase {
        *self.0.borrow()
    }

    /// Moves on to `phase` and tells systemd; does nothing when the process is past it.
    pub fn enter(&self, phase: Phase) {
        let moved = self.0.send_if_modified(|now| {
            let forward = phase > *now;
            if forward {
                *now = phase;
            }
            forward
        });
        if moved {
            tracing::info!(%phase, "phase");
            tell_systemd(phase);
        }
    }

    /// Waits until the process is in `phase` or past it.
    pub async fn reached(&self, phase: Phase) {
        let mut changes = self.0.subscribe();
        // The sender lives in `self`, so the wait cannot fail.
        let _waited = changes.wait_for(|now| *now >= phase).await;
    }
}

fn tell_systemd(phase: Phase) {
    let state = match phase {
        Phase::Starting => return,
        Phase::Serving => sd_notify::NotifyState::Ready,
        Phase::Draining | Phase::Stopped => sd_notify::NotifyState::Stopping,
    };
    // Without systemd there is nobody to tell, which is no fault.
    let _told = sd_notify::notify(&[state]);
}

/// What the operator asks for by a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// SIGTERM or SIGINT.
    Stop,
    /// SIGHUP.
    Reload,
}

/// The signals that we answer.
#[derive(Debug)]
pub struct Signals {
    terminate: SignalStream,
    interrupt: SignalStream,
    hangup: SignalStream,
}

impl Signals {
    /// Takes over the signals; from here on they no longer end the process by themselves.
    ///
    /// # Errors
    /// When the kernel refuses a handler.
    pub fn install() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The next request.
    pub async fn next(&mut self) -> Request {
        tokio::select! {
            _ = self.terminate.recv() => Request::Stop,
            _ = self.interrupt.recv() => Request::Stop,
            _ = self.hangup.recv() => Request::Reload,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn phases_never_move_back() {
        let lifecycle = Lifecycle::default();
        lifecycle.enter(Phase::Draining);
        lifecycle.enter(Phase::Serving);
        assert_eq!(lifecycle.phase(), Phase::Draining);
        lifecycle.reached(Phase::Serving).await;
    }
}
