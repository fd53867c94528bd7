//! One swap of one pointer: how tables, certificates and trust reach the threads that use them.
//!
//! A [`Publisher`] is the only writer of its value and cannot be cloned; [`Reader`]s are many. A reader never waits and
//! never sees half a value. What was replaced is dropped by the publisher's side ([`Publisher::sweep`]), never by the
//! thread that happened to be the last reader: freeing a big table takes milliseconds.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;

/// The writing end.
#[derive(Debug)]
pub struct Publisher<T> {
    current: Arc<ArcSwap<T>>,
    generation: watch::Sender<u64>,
    retired: Vec<Arc<T>>,
}

/// The reading end.
#[derive(Debug)]
pub struct Reader<T> {
    current: Arc<ArcSwap<T>>,
    generation: watch::Receiver<u64>,
}

impl<T> Clone for Reader<T> {
    fn clone(&self) -> Self {
        Self { current: self.current.clone(), generation: self.generation.clone() }
    }
}

impl<T> Publisher<T> {
    /// Starts with `first` in force, as generation 0.
    #[must_use]
    pub fn new(first: T) -> Self {
        let (generation, _) = watch::channel(0);
        Self { current: Arc::new(ArcSwap::from_pointee(first)), generation, retired: Vec::new() }
    }

    /// A reading end.
    #[must_use]
    pub fn reader(&self) -> Reader<T> {
        Reader { current: self.current.clone(), generation: self.generation.subscribe() }
    }

    /// Puts `next` in force and wakes whoever waits for a change.
    pub fn publish(&mut self, next: T) {
        self.retired.push(self.current.swap(Arc::new(next)));
        self.generation.send_modify(|generation| *generation += 1);
        self.sweep();
    }

    /// What is in force.
    #[must_use]
    pub fn current(&self) -> Arc<T> {
        self.current.load_full()
    }

    /// How many values were published after the first.
    #[must_use]
    pub fn generation(&self) -> u64 {
        *self.generation.borrow()
    }

    /// Drops replaced values that nobody reads any more. Call it now and then from the thread that may pay for it.
    pub fn sweep(&mut self) {
        self.retired.retain(|value| Arc::strong_count(value) > 1);
    }
}

impl<T> Reader<T> {
    /// What is in force, without counting a reference: for use within one poll.
    #[must_use]
    pub fn load(&self) -> Guard<Arc<T>> {
        self.current.load()
    }

    /// What is in force, to be kept. Keep it no longer than a decision takes: an old value stays in memory with it.
    #[must_use]
    pub fn load_full(&self) -> Arc<T> {
        self.current.load_full()
    }

    /// The number of the value in force.
    #[must_use]
    pub fn generation(&self) -> u64 {
        *self.generation.borrow()
    }

    /// Waits for the next change after the last call; false when the publisher is gone.
    pub async fn changed(&mut self) -> bool {
        self.generation.changed().await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retired_value_is_kept_while_it_is_read_and_dropped_by_the_sweep() {
        let mut publisher = Publisher::new(1);
        let reader = publisher.reader();
        let held = reader.load_full();
        publisher.publish(2);
        assert_eq!((*held, *reader.load_full()), (1, 2));
        assert_eq!(publisher.retired.len(), 1);
        drop(held);
        publisher.sweep();
        assert!(publisher.retired.is_empty());
    }

    #[tokio::test]
    async fn readers_wake_on_a_change() {
        let mut publisher = Publisher::new(());
        let mut reader = publisher.reader();
        publisher.publish(());
        assert!(reader.changed().await);
        assert_eq!(reader.generation(), 1);
        drop(publisher);
        assert!(!reader.changed().await);
    }
}
