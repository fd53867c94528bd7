//! Whether a request is tried again, and when.
//!
//! What no application saw is always safe; what one may have acted on only when the request is idempotent (RFC 9110
//! §9.2.2) or declared so, its body can be sent again, and the budget of retries is not spent. The number of attempts
//! bounds both; the budget bounds only the second kind: when an agent drains or restarts, everything that was not begun
//! there must go elsewhere, however much that is.

use std::time::Duration;

use http::Method;
use weft_core::resource::Retries;

use super::RetryBudget;
use crate::fault::{Fault, RetryRule};

/// The longest wait before the second retry; doubled for each further one.
const FIRST_WAIT: Duration = Duration::from_millis(25);
/// The longest wait before any.
const LONGEST_WAIT: Duration = Duration::from_millis(250);

/// One request's attempts.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    /// How many were made, the first one included.
    pub made: u8,
    /// What the route allows.
    pub retries: Retries,
    /// Whether the request may be carried out twice: by its method or on the user's word.
    pub repeatable: bool,
}

/// Why a request might be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It met a fault, here or, as named in the response, at the other agent.
    Fault(Fault),
    /// The response has a status of 502, 503 or 504.
    GatewayError,
}

/// Why a request is not tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It would do no good, or harm.
    Unsafe,
    /// All attempts were made.
    Exhausted,
    /// Too many requests are retries already.
    OverBudget,
}

/// Whether a method is idempotent by its definition (RFC 9110 §9.2.2).
#[must_use]
pub fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}

impl Attempt {
    /// Before the first attempt of a request.
    #[must_use]
    pub fn new(method: &Method, retries: Retries) -> Self {
        Self { made: 0, retries, repeatable: retries.all_methods || is_idempotent(method) }
    }

    /// Counts an attempt that is about to be made.
    pub fn begin(&mut self) {
        self.made = self.made.saturating_add(1);
    }

    /// After a failed attempt: how long to wait before the next one. `body_kept` says whether the body can be sent
    /// again from its beginning; what was never dispatched must still have its body too.
    ///
    /// # Errors
    /// Why there is no next one.
    pub fn again(&self, cause: Cause, body_kept: bool, budget: &RetryBudget) -> Result<Duration, Refused> {
        let rule = match cause {
            Cause::Fault(fault) => fault.facts().retry,
            Cause::GatewayError if self.retries.on_gateway_error => RetryRule::Idempotent,
            Cause::GatewayError => RetryRule::Never,
        };
        let safe = match rule {
            RetryRule::Never => false,
            RetryRule::Always => body_kept,
            RetryRule::Idempotent => body_kept && self.repeatable,
        };
        if !safe {
            return Err(Refused::Unsafe);
        }
        if self.made > self.retries.attempts {
            return Err(Refused::Exhausted);
        }
        if rule == RetryRule::Idempotent && !budget.withdraw() {
            return Err(Refused::OverBudget);
        }
        Ok(self.wait())
    }

    /// None before the first retry, which goes to another endpoint; then up to twice as long each time, at random.
    fn wait(&self) -> Duration {
        let doublings = u32::from(self.made.saturating_sub(2)).min(8);
        let longest =
            if self.made < 2 { Duration::ZERO } else { (FIRST_WAIT * (1 << doublings)).min(LONGEST_WAIT) };
        longest.mul_f64(fastrand::f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(method: &Method, retries: Retries, made: u8) -> Attempt {
        Attempt { made, ..Attempt::new(method, retries) }
    }

    #[test]
    fn safety_depends_on_the_fault_the_method_and_the_body() {
        let retries = Retries::default();
        let all = Retries { all_methods: true, ..retries };
        let on_gateway = Retries { on_gateway_error: true, ..retries };
        let never_begun = Cause::Fault(Fault::ConnectRefused);
        let maybe_begun = Cause::Fault(Fault::ConnectionLost);
        let cases = [
            (Method::POST, retries, never_begun, true, true),
            (Method::POST, retries, never_begun, false, false),
            (Method::POST, retries, maybe_begun, true, false),
            (Method::POST, all, maybe_begun, true, true),
            (Method::GET, retries, maybe_begun, true, true),
            (Method::PUT, retries, maybe_begun, false, false),
            (Method::GET, retries, Cause::GatewayError, true, false),
            (Method::GET, on_gateway, Cause::GatewayError, true, true),
            (Method::POST, on_gateway, Cause::GatewayError, true, false),
            (Method::GET, all, Cause::Fault(Fault::Denied), true, false),
            (Method::GET, all, Cause::Fault(Fault::ResponseTimeout), true, false),
        ];
        for (method, retries, cause, body_kept, wanted) in cases {
            let answer = attempt(&method, retries, 1).again(cause, body_kept, &RetryBudget::default());
            assert_eq!(answer.is_ok(), wanted, "{method} {cause:?}");
        }
    }

    #[test]
    fn attempts_run_out() {
        let budget = RetryBudget::default();
        let mut attempt = Attempt::new(&Method::POST, Retries { attempts: 2, ..Retries::default() });
        let cause = Cause::Fault(Fault::NotDispatched);
        attempt.begin();
        assert_eq!(attempt.again(cause, true, &budget), Ok(Duration::ZERO));
        attempt.begin();
        assert!(attempt.again(cause, true, &budget).unwrap() <= FIRST_WAIT);
        attempt.begin();
        assert_eq!(attempt.again(cause, true, &budget), Err(Refused::Exhausted));
    }

    #[test]
    fn waits_grow_and_stay_bounded() {
        for (made, longest) in [(1, 0), (2, 25), (3, 50), (4, 100), (5, 200), (6, 250), (200, 250)] {
            for _ in 0..100 {
                let wait = attempt(&Method::GET, Retries::default(), made).wait();
                assert!(wait <= Duration::from_millis(longest), "{made}: {wait:?}");
            }
        }
    }

    #[test]
    fn an_outage_does_not_double_the_load_but_a_drain_loses_nothing() {
        let budget = RetryBudget::default();
        let attempt = attempt(&Method::GET, Retries::default(), 1);
        let lost = (0..1_000).filter(|_| {
            budget.deposit(0);
            attempt.again(Cause::Fault(Fault::ConnectionLost), true, &budget).is_err()
        });
        assert!(lost.count() > 700);
        assert!((0..1_000).all(|_| attempt.again(Cause::Fault(Fault::NotDispatched), true, &budget).is_ok()));
    }
}
