//! Opaque bytes.

pub mod copy;
