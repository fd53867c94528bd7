//! The certificates that inbound connections show, for telling those connections when theirs is another.
//!
//! A host has many workloads, and their certificates are renewed one at a time: only the connections that show what was
//! renewed need to be replaced, and none when credentials are published that are the same.

use std::{cell::RefCell, collections::HashMap, rc::Rc};

use foldhash::fast::RandomState;
use weft_core::{identity::SpiffeId, tls::Credentials};

use crate::signal::{Listener, Signal};

/// Who a connection says we are, by which certificate (its serial number), and under which trust generation it knows its
/// caller.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Shown {
    identity: SpiffeId,
    serial: String,
    trust_generation: u64,
}

impl Shown {
    fn of(credentials: &Credentials, identity: &SpiffeId) -> Option<Self> {
        let serial = credentials.identity(identity)?.leaf().serial.clone();
        let trust_generation = credentials.trust_generation();
        Some(Self { identity: identity.clone(), serial, trust_generation })
    }
}

/// What a worker's inbound connections show.
#[derive(Debug, Default)]
pub(crate) struct ShownCertificates(RefCell<HashMap<Shown, Rc<Signal>, RandomState>>);

impl ShownCertificates {
    /// For a connection that was made under `then`: rises when what `now` has for the identity is another certificate,
    /// or trust, or does so at once.
    pub(crate) fn watch(&self, identity: &SpiffeId, then: &Credentials, now: &Credentials) -> Listener {
        let current = Shown::of(now, identity);
        // What came while the connection was made may be what it shows, or not.
        let shown = Shown::of(then, identity).filter(|shown| Some(shown) == current.as_ref());
        match shown {
            Some(shown) => self.0.borrow_mut().entry(shown).or_default().listen(),
            None => {
                let risen = Rc::new(Signal::default());
                let listener = risen.listen();
                risen.raise(1);
                listener
            }
        }
    }

    /// Tells the connections that show what is not in force any more.
    pub(crate) fn renew(&self, now: &Credentials) {
        self.0.borrow_mut().retain(|shown, signal| {
            let holds = Shown::of(now, &shown.identity).as_ref() == Some(shown);
            if !holds {
                signal.raise(1);
            }
            holds
        });
    }
}
