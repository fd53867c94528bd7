//! placeholder
pub mod clock;
pub mod fault;
pub mod headers;
pub mod normalise;
pub mod source;
pub mod balance;
pub mod resilience;
pub mod record;
pub mod tcp;
