//! Where another cluster becomes one more registry.
//!
//! Nothing is here yet but the wall: this crate may use `weft-core` and nothing else, so that a peer is imported through
//! the same event stream as any catalog and can never reach into tables or sockets of the data path.
