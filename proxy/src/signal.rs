//! What a worker tells all its connections at once, without a lock and without a cost per poll that a profile can see.
//!
//! A connection looks at one `Cell` whenever it is polled anyway, and leaves its waker once. Raising the signal wakes
//! all that left one. Nothing crosses a thread.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

/// The value of a worker's drain signal when nothing new is accepted and what is under way finishes; 0 before.
pub(crate) const DRAINING: u32 = 1;
/// The same when callers had time to say what they were about to say, or to leave: whoever waits for them waits no more.
pub(crate) const PARTING: u32 = 2;
/// The same when the deadline is over: what is left is closed politely.
pub(crate) const CLOSING: u32 = 3;

/// Waits for `future`, at most until the drain's deadline is over; none then. With `woken`, the task is polled at that
/// moment anyway.
pub(crate) async fn until_closing<F: Future>(
    drain: &Rc<Signal>,
    woken: bool,
    mut future: Pin<&mut F>,
) -> Option<F::Output> {
    let mut listener = (!woken).then(|| drain.listen());
    poll_fn(|context| {
        if let Poll::Ready(output) = future.as_mut().poll(context) {
            return Poll::Ready(Some(output));
        }
        let value = listener.as_mut().map_or_else(|| drain.value(), |listener| listener.poll(context));
        if value >= CLOSING { Poll::Ready(None) } else { Poll::Pending }
    })
    .await
}

/// A counter that many local tasks wait on.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    value: Cell<u32>,
    wakers: RefCell<Wakers>,
}

/// Who is to be woken, each at a place of its own.
#[derive(Debug, Default)]
struct Wakers {
    places: Vec<Option<Waker>>,
    free: Vec<usize>,
}

impl Wakers {
    fn insert(&mut self, waker: Waker) -> usize {
        if let Some(place) = self.free.pop() {
            self.places[place] = Some(waker);
            return place;
        }
        self.places.push(Some(waker));
        self.places.len() - 1
    }

    fn remove(&mut self, place: usize) {
        self.places[place] = None;
        self.free.push(place);
    }
}

/// One task's registration with a [`Signal`]; withdrawn when dropped.
#[derive(Debug)]
pub(crate) struct Listener {
    signal: Rc<Signal>,
    place: Option<usize>,
    first: u32,
}

impl Signal {
    /// The value now.
    pub(crate) fn value(&self) -> u32 {
        self.value.get()
    }

    /// Raises the value to at least `value` and wakes all listeners if that changed it.
    pub(crate) fn raise(&self, value: u32) {
        if value > self.value.get() {
            self.value.set(value);
            for waker in self.wakers.borrow().places.iter().flatten() {
                waker.wake_by_ref();
            }
        }
    }

    /// A registration for the calling task.
    pub(crate) fn listen(self: &Rc<Self>) -> Listener {
        Listener { signal: self.clone(), place: None, first: self.value() }
    }
}

impl Listener {
    /// The value now.
    pub(crate) fn value(&self) -> u32 {
        self.signal.value()
    }

    /// The value now; the task is woken when it rises.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> u32 {
        if self.place.is_none() {
            self.place = Some(self.signal.wakers.borrow_mut().insert(context.waker().clone()));
        }
        self.signal.value.get()
    }

    /// Whether the value rose since the registration was made; the task is woken when it does.
    pub(crate) fn poll_risen(&mut self, context: &mut Context<'_>) -> bool {
        self.poll(context) != self.first
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.signal.wakers.borrow_mut().remove(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "local")]
    async fn raising_wakes_and_dropping_withdraws() {
        let signal = Rc::new(Signal::default());
        let mut listener = signal.listen();
        let above_0 = move |context: &mut Context<'_>| match listener.poll(context) {
            0 => Poll::Pending,
            value => Poll::Ready(value),
        };
        let waiting = tokio::task::spawn_local(poll_fn(above_0));
        tokio::task::yield_now().await;
        let waiting_now = || signal.wakers.borrow().places.iter().flatten().count();
        assert_eq!(waiting_now(), 1);
        signal.raise(2);
        signal.raise(1);
        assert_eq!(waiting.await.unwrap(), 2);
        assert_eq!(waiting_now(), 0);
        drop(signal.listen());
        assert_eq!(signal.wakers.borrow().free, [0]);
    }
}
