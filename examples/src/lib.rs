//! Examples: each folder of this crate is a page and the files a user would copy; `agent/tests` runs them with the real
//! binary.
