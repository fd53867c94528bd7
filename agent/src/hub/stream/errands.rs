//! What a stream's words want of the store, one after the other in their order, while the stream goes on: a store that is
//! away holds up neither discovery nor acknowledgements nor the node's certificates.
//!
//! Bounded by number and size. What does not fit is refused as long as that is so, and the agent says it again later:
//! not to read on would hold up everything else that it says.

use std::{
    collections::VecDeque,
    future::poll_fn,
    task::{Poll, ready},
};

use futures_core::future::BoxFuture;
use weft_core::control::message::RefusalCode;

use crate::hub::announced::MOST_OF_A_NODE;

/// How many may wait: all that a node may announce, once.
const MOST: usize = MOST_OF_A_NODE;
/// How large all that wait may be, in bytes of the words.
const LARGEST: usize = 1024 * 1024;

/// Something to be done, which gives what to say of it.
pub(super) type Errand = BoxFuture<'static, ErrandAnswer>;

/// What to say when an errand is done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ErrandAnswer {
    /// Nothing.
    Nothing,
    /// The request of this number is granted.
    Done(u64),
    /// It is not, and why.
    Refused(u64, RefusalCode, String),
}

impl ErrandAnswer {
    /// The answer to a request.
    pub(super) fn of(request: u64, outcome: Result<(), (RefusalCode, String)>) -> Self {
        outcome.map_or_else(|(code, message)| Self::Refused(request, code, message), |()| Self::Done(request))
    }
}

/// Those that wait, of which the first may be under way.
#[derive(Default)]
pub(super) struct Errands {
    waiting: VecDeque<(usize, Errand)>,
    /// Their sizes together.
    size: usize,
    /// The node's last report: an older one that was not written yet is of no account.
    report: Option<Errand>,
    /// A report that is being written.
    reporting: Option<Errand>,
}

impl Errands {
    /// Adds one behind all others; false when it does not fit.
    pub(super) fn add(&mut self, size: usize, errand: Errand) -> bool {
        if self.waiting.len() >= MOST || self.size + size > LARGEST {
            return false;
        }
        self.size += size;
        self.waiting.push_back((size, errand));
        true
    }

    /// Adds a report.
    pub(super) fn report(&mut self, errand: Errand) {
        self.report = Some(errand);
    }

    /// The answer of the next one that is done; waits for ever where there is none. May be dropped at any time.
    pub(super) async fn next(&mut self) -> ErrandAnswer {
        poll_fn(|context| {
            if self.reporting.is_none() {
                self.reporting = self.report.take();
            }
            if let Some(reporting) = &mut self.reporting
                && let Poll::Ready(answer) = reporting.as_mut().poll(context)
            {
                self.reporting = None;
                return Poll::Ready(answer);
            }
            let Some((size, errand)) = self.waiting.front_mut() else { return Poll::Pending };
            let answer = ready!(errand.as_mut().poll(context));
            self.size -= *size;
            self.waiting.pop_front();
            Poll::Ready(answer)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn they_are_done_in_their_order_and_bounded() {
        let mut errands = Errands::default();
        assert!(errands.next().now_or_never().is_none());
        let (first, wait) = oneshot::channel::<()>();
        let slow = async move {
            let _done = wait.await;
            ErrandAnswer::Done(1)
        };
        assert!(errands.add(10, Box::pin(slow)));
        assert!(errands.add(LARGEST - 10, Box::pin(async { ErrandAnswer::Done(2) })));
        assert!(!errands.add(1, Box::pin(async { ErrandAnswer::Done(3) })), "it is full");
        assert!(errands.next().now_or_never().is_none(), "the second waits for the first");
        first.send(()).unwrap();
        assert_eq!(errands.next().await, ErrandAnswer::Done(1));
        assert_eq!(errands.next().await, ErrandAnswer::Done(2));
        for number in 0..MOST {
            assert!(errands.add(0, Box::pin(async { ErrandAnswer::Nothing })), "{number}");
        }
        assert!(!errands.add(0, Box::pin(async { ErrandAnswer::Nothing })));
    }

    #[tokio::test]
    async fn the_last_report_counts_and_waits_for_no_other_errand() {
        let mut errands = Errands::default();
        assert!(errands.add(0, Box::pin(std::future::pending())));
        for number in [1, 2] {
            errands.report(Box::pin(async move { ErrandAnswer::Done(number) }));
        }
        assert_eq!(errands.next().await, ErrandAnswer::Done(2));
        assert!(errands.next().now_or_never().is_none());
    }
}
