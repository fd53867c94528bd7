//! Starts the real registries that tests, benches and the demonstration run against.
