//! Where the faults of one file gather while it is read.

use std::{cell::RefCell, collections::BTreeSet, ops::Range};

use super::{
    fault::{Fault, Place},
    source::SourceFile,
};

/// The faults of one file, and what syntax errors make doubtful.
pub(super) struct Collector<'s> {
    source: &'s SourceFile,
    faults: RefCell<Vec<Fault>>,
    /// Lines whose text could not be parsed: what was recovered from them is a guess.
    doubtful_lines: BTreeSet<u32>,
}

impl<'s> Collector<'s> {
    /// Begins with the file's syntax errors.
    pub(super) fn new(source: &'s SourceFile, syntax: Vec<Fault>) -> Self {
        let doubtful_lines = syntax.iter().map(|fault| fault.place.line).collect();
        Self { source, faults: RefCell::new(syntax), doubtful_lines }
    }

    pub(super) fn place(&self, span: Range<usize>) -> Place {
        self.source.place(span)
    }

    /// Keeps a fault, unless a syntax error of its line may be its cause.
    pub(super) fn push(&self, fault: Fault) {
        if !self.doubtful_lines.contains(&fault.place.line) {
            self.faults.borrow_mut().push(fault);
        }
    }

    /// Keeps a fault about something that is not there, unless a syntax error may have hidden it.
    pub(super) fn push_missing(&self, fault: Fault) {
        if self.doubtful_lines.is_empty() {
            self.push(fault);
        }
    }

    /// How many faults there are so far; some are left out where a syntax error may be their cause.
    pub(super) fn count(&self) -> usize {
        self.faults.borrow().len()
    }

    /// All faults in the order of the file; at one place, in the order of reading.
    pub(super) fn into_faults(self) -> Vec<Fault> {
        let mut faults = self.faults.into_inner();
        faults.sort_by_key(|fault| (fault.place.line, fault.place.column));
        faults.dedup();
        faults
    }
}
