//! Weft's model and its pure logic: no sockets, and no files but the persisted state of
//! the flow and what the configuration reader is asked to read.
//!
//! ```text
//!   Registry ──events──> driver ──> merge ──Snapshot──> compile ──Table──> publish ──Reader<Table>──> proxy
//! ```
//!
//! The modules below are in dependency order: each uses only those before it, and a test holds that.

mod intern;
pub mod name;
pub mod identity;
pub mod locality;
pub mod path;
pub mod resource;
pub mod workload;
pub mod context;
pub mod registry;
pub mod table;
pub mod virtual_address;
pub mod publish;
pub mod diagnostic;
pub mod merge;
pub mod compile;
pub mod driver;
pub mod flow;
pub mod wire;
pub mod tls;
pub mod control;
pub mod config;
