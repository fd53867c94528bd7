//! What both sides tell of themselves, checked.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    ControlError,
    discovery::{read_fault, write_fault},
    error::named,
    message,
};
use crate::{identity::SpiffeId, name::RegistryName, registry::OriginFault};

/// The longest serial number (RFC 5280: 20 bytes), in hexadecimal digits.
const LONGEST_SERIAL: usize = 40;
/// How many roots a node may report.
const MOST_ROOTS: usize = 64;
/// How many certificates a node may report.
const MOST_CERTIFICATES: usize = 4096;
/// How many faults of one registry are told.
pub const MOST_FAULTS: usize = 64;
/// The longest text of a fault that is told, in bytes.
const LONGEST_TEXT: usize = 1024;

/// What a node holds: the roots that it trusts for its own mesh, and the certificates it shows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeReport {
    /// The SHA-256 of each root.
    pub roots: Vec<[u8; 32]>,
    /// The node's own certificate and those of its workloads.
    pub certificates: Vec<HeldCertificate>,
}

/// A certificate in force at a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldCertificate {
    /// Whom it names.
    pub identity: SpiffeId,
    /// The serial number in hexadecimal, lower case.
    pub serial: String,
    /// Until when it is valid.
    pub not_after: SystemTime,
    /// The SHA-256 of the first of the node's roots that it leads to; none when it leads to none.
    pub root: Option<[u8; 32]>,
}

impl NodeReport {
    /// As it is on the wire.
    #[must_use]
    pub fn to_message(&self) -> message::Report {
        let bytes = |digest: &[u8; 32]| Bytes::copy_from_slice(digest);
        let certificate = |held: &HeldCertificate| message::HeldCertificate {
            identity: held.identity.to_string(),
            serial: held.serial.clone(),
            not_after: held.not_after.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            root: held.root.as_ref().map(bytes).unwrap_or_default(),
        };
        message::Report {
            roots: self.roots.iter().map(bytes).collect(),
            certificates: self.certificates.iter().map(certificate).collect(),
        }
    }

    /// Checks a report of the other side.
    ///
    /// # Errors
    /// When there are too many parts, or one breaks its rule.
    pub fn from_message(report: message::Report) -> Result<Self, ControlError> {
        bounded("roots", report.roots.len(), MOST_ROOTS)?;
        bounded("certificates", report.certificates.len(), MOST_CERTIFICATES)?;
        let roots = report.roots.iter().map(digest).collect::<Result<_, _>>()?;
        let certificates = report.certificates.into_iter().map(read_certificate).collect::<Result<_, _>>()?;
        Ok(Self { roots, certificates })
    }

    /// Whether the node trusts a root.
    #[must_use]
    pub fn trusts(&self, root: &[u8; 32]) -> bool {
        self.roots.contains(root)
    }
}

fn read_certificate(held: message::HeldCertificate) -> Result<HeldCertificate, ControlError> {
    bounded("serial", held.serial.len(), LONGEST_SERIAL)?;
    let not_after = UNIX_EPOCH.checked_add(Duration::from_secs(held.not_after));
    let not_after = not_after.ok_or(ControlError::Value { field: "not_after", value: i64::MAX })?;
    let root = if held.root.is_empty() { None } else { Some(digest(&held.root)?) };
    let identity = named("identity", SpiffeId::parse(&held.identity))?;
    Ok(HeldCertificate { identity, serial: held.serial, not_after, root })
}

fn digest(bytes: &Bytes) -> Result<[u8; 32], ControlError> {
    bytes[..].try_into().map_err(|_| ControlError::Length { field: "root", length: bytes.len() })
}

fn bounded(field: &'static str, length: usize, most: usize) -> Result<(), ControlError> {
    if length <= most { Ok(()) } else { Err(ControlError::Length { field, length }) }
}

/// How a registry is that the hub follows, seen from the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayedState {
    /// Its name.
    pub registry: RegistryName,
    /// For how long the hub has had no word from it, when this was told; none while it has.
    pub down_for: Option<Duration>,
    /// Why; empty while nothing is wrong.
    pub error: String,
    /// What the hub could not take over, the first [`MOST_FAULTS`] of it.
    pub faults: Vec<OriginFault>,
}

impl RelayedState {
    /// As it is on the wire: long texts and long lists are cut.
    #[must_use]
    pub fn to_message(&self) -> message::RegistryState {
        let fault = |fault: &OriginFault| {
            let mut written = write_fault(fault);
            (written.message, written.place) = (cut(&written.message), cut(&written.place));
            written
        };
        message::RegistryState {
            registry: self.registry.to_string(),
            down_for_ms: self.down_for.map(|span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX)),
            error: cut(&self.error),
            faults: self.faults.iter().take(MOST_FAULTS).map(fault).collect(),
        }
    }

    /// Checks what the other side told.
    ///
    /// # Errors
    /// When the name breaks its rule.
    pub fn from_message(state: message::RegistryState) -> Result<Self, ControlError> {
        Ok(Self {
            registry: named("registry", RegistryName::new(&state.registry))?,
            down_for: state.down_for_ms.map(Duration::from_millis),
            error: state.error,
            faults: state.faults.into_iter().map(read_fault).collect(),
        })
    }
}

/// The text up to [`LONGEST_TEXT`], cut where a character ends.
fn cut(text: &str) -> String {
    let end = (0..=LONGEST_TEXT.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text[..end.unwrap_or(0)].to_owned()
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    fn report() -> NodeReport {
        let held = HeldCertificate {
            identity: SpiffeId::parse("spiffe://demo.mesh/ns/default/sa/web").unwrap(),
            serial: "4f00".to_owned(),
            not_after: UNIX_EPOCH + Duration::from_secs(1_800_000_000),
            root: Some([7; 32]),
        };
        NodeReport { roots: vec![[7; 32], [8; 32]], certificates: vec![held] }
    }

    #[test]
    fn a_report_comes_back_as_it_was() {
        let message = report().to_message();
        assert_eq!(NodeReport::from_message(message.clone()).unwrap(), report());
        let held = message::HeldCertificate { root: Bytes::new(), ..message.certificates[0].clone() };
        let message = message::Report { certificates: vec![held], ..message };
        assert_eq!(NodeReport::from_message(message).unwrap().certificates[0].root, None);
    }

    #[test]
    fn a_report_stays_byte_for_byte_as_it_is() {
        let report = NodeReport { roots: vec![], ..report() };
        let mut expected =
            hex("12540a247370696666653a2f2f64656d6f2e6d6573682f6e732f64656661756c742f73612f776562");
        expected.extend(hex("1204346630301880a4a7da062220"));
        expected.extend([7; 32]);
        assert_eq!(report.to_message().encode_to_vec(), expected);
    }

    fn hex(text: &str) -> Vec<u8> {
        data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap()
    }

    #[test]
    fn what_breaks_a_rule_is_refused() {
        let good = report().to_message();
        let with = |change: &dyn Fn(&mut message::HeldCertificate)| {
            let mut message = good.clone();
            change(&mut message.certificates[0]);
            NodeReport::from_message(message)
        };
        assert!(with(&|_| {}).is_ok());
        assert!(with(&|held| held.identity = "spiffe://".to_owned()).is_err());
        assert!(with(&|held| held.serial = "0".repeat(41)).is_err());
        assert!(with(&|held| held.not_after = u64::MAX).is_err());
        assert!(with(&|held| held.root = Bytes::from_static(&[1; 31])).is_err());
        let roots = message::Report { roots: vec![Bytes::from_static(&[1; 32]); 65], ..good.clone() };
        assert!(NodeReport::from_message(roots).is_err());
        let held = vec![good.certificates[0].clone(); 4097];
        assert!(NodeReport::from_message(message::Report { certificates: held, ..good }).is_err());
    }

    #[test]
    fn a_registry_state_is_told_within_bounds() {
        let fault = OriginFault { message: "é".repeat(1000), place: "a:1:1".into(), keeps_last_good: true };
        let state = RelayedState {
            registry: RegistryName::new("static").unwrap(),
            down_for: Some(Duration::from_secs(3)),
            error: "gone".to_owned(),
            faults: vec![fault; 100],
        };
        let read = RelayedState::from_message(state.to_message()).unwrap();
        assert_eq!((read.down_for, read.error.as_str()), (state.down_for, "gone"));
        assert_eq!(read.faults.len(), MOST_FAULTS);
        assert_eq!(read.faults[0].message.len(), 1024);
        let bad = message::RegistryState { registry: "-".to_owned(), ..state.to_message() };
        assert!(RelayedState::from_message(bad).is_err());
    }
}
