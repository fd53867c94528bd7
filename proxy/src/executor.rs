//! How tasks are spawned: on the worker's own thread, and nowhere else.
//!
//! Everything on the data path goes through this one type, so that the worker model could change in one place. Tasks
//! are local: they may hold `Rc`, and never wait for another worker.

use std::future::Future;

use tokio::task::JoinHandle;

/// Spawns tasks on the current worker's `LocalRuntime`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LocalExecutor;

impl LocalExecutor {
    /// Starts `future` on this worker. It ends when it is done or when the worker's runtime is dropped.
    pub(crate) fn spawn<F>(self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        tokio::task::spawn_local(future)
    }
}
