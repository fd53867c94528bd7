//! What is learned from failures: which endpoints to leave alone for a while, and whether to try a request again.

mod budget;
mod health;
mod retry;

pub use budget::{RetryBudget, RetryBudgets};
pub use health::{HealthSettings, Observation, observe};
pub use retry::{Attempt, Cause, Refused, is_idempotent};
