//! Opaque bytes.

pub mod websocket;

pub mod copy;
