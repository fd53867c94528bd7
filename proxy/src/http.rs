//! What HTTP needs on both sides of the proxy: bodies, serving a connection, answers of our own.

pub(crate) mod body;
pub(crate) mod finish;
pub(crate) mod pump;
pub(crate) mod replay;
pub(crate) mod serve;
