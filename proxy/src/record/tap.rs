//! Requests shown as they end, to those who listen at the moment.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use tokio::sync::broadcast::{self, error::RecvError};
use weft_core::context::RequestContext;

/// How many requests a slow listener may be behind before it misses some.
const BACKLOG: usize = 1024;

/// The showing side.
#[derive(Clone, Debug)]
pub(super) struct Tap {
    sender: broadcast::Sender<Arc<RequestContext>>,
    listeners: Arc<AtomicUsize>,
}

impl Default for Tap {
    fn default() -> Self {
        Self { sender: broadcast::Sender::new(BACKLOG), listeners: Arc::default() }
    }
}

impl Tap {
    /// Asked once per request; tokio's own count takes a lock.
    pub(super) fn is_listened_to(&self) -> bool {
        self.listeners.load(Relaxed) != 0
    }

    pub(super) fn show(&self, context: RequestContext) {
        // An error says that the last listener has just left.
        let _ = self.sender.send(Arc::new(context));
    }

    pub(super) fn listen(&self) -> TapReceiver {
        self.listeners.fetch_add(1, Relaxed);
        TapReceiver { receiver: self.sender.subscribe(), listeners: self.listeners.clone() }
    }
}

/// What a listener gets.
#[derive(Clone, Debug, PartialEq)]
pub enum Tapped {
    /// A request that ended.
    Request(Arc<RequestContext>),
    /// So many requests were missed, because the listener was too slow.
    Missed(u64),
}

/// The listening side.
#[derive(Debug)]
pub struct TapReceiver {
    receiver: broadcast::Receiver<Arc<RequestContext>>,
    listeners: Arc<AtomicUsize>,
}

impl TapReceiver {
    /// The next request; none when the proxy is gone. Safe to cancel.
    pub async fn next(&mut self) -> Option<Tapped> {
        match self.receiver.recv().await {
            Ok(context) => Some(Tapped::Request(context)),
            Err(RecvError::Lagged(missed)) => Some(Tapped::Missed(missed)),
            Err(RecvError::Closed) => None,
        }
    }
}

impl Drop for TapReceiver {
    fn drop(&mut self) {
        self.listeners.fetch_sub(1, Relaxed);
    }
}
