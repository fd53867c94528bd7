//! The backends.

mod consul;
mod dns;
mod eureka;
mod kubernetes;
mod nomad;
mod static_files;

use crate::bed::Bed;

/// Opens a bed; none, having said so loudly, where its server is not installed.
type Open = fn() -> Option<Box<dyn Bed>>;

/// Every backend by its word in `kind = "…"`.
pub(crate) const BEDS: &[(&str, Open)] = &[
    ("static", static_files::open),
    ("consul", consul::open),
    ("nomad", nomad::open),
    ("dns", dns::open),
    ("eureka", eureka::open),
    ("kubernetes", kubernetes::open),
];
