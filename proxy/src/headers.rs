//! What a proxy owes the headers of a message: checks that hyper does not make, hop-by-hop fields, forwarding fields,
//! request and trace IDs, and that nobody outside speaks in our name.
//!
//! All edits are in place. A message is looked through once ([`Survey`]); what it does not have then costs nothing.
//! hyper accepts two `Host` fields, none, and `transfer-encoding: chunked, chunked`; those are refused here. It drops
//! a `content-length` that stands beside a transfer coding before we see it, and accepts a bare LF as the end of a
//! line, which is gone in what we forward.

mod forwarded;
mod grpc;
mod hex;
mod hop;
mod host;
mod http1;
mod request_id;
mod scan;
mod survey;
mod trace;

pub use forwarded::Forwarded;
pub use grpc::{grpc_status, is_grpc};
pub(crate) use hop::names;
pub use hop::{clean_request, clean_response, clean_trailers};
pub use host::{Host, admit, named_host};
pub use http1::fit_http1;
pub use request_id::RequestId;
pub use scan::HeadScan;
pub use survey::{Seen, Survey};
pub use trace::{TraceContext, TraceId};
