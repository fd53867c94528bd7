//! Examples: each folder of this crate is a page and the files a user would copy; tests run them with the real binary.
//! What needs code of its own, a registry that Weft does not know, is a module here.

pub mod json_registry;
