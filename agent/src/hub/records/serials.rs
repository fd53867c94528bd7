//! The trail of what was signed: per node, the certificates that are valid. What has expired leaves with the next note, so
//! the trail is as long as what it tells of.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use weft_core::identity::SpiffeId;

use super::{
    Records, SERIALS,
    change::{encode, overtaken, parse},
};
use crate::hub::store::{Expected, Put, StoreError};

/// How many certificates of one node are remembered, the newest: a record fits into every store.
const MAX_SERIALS: usize = 1000;

/// A certificate that was signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedCertificate {
    /// Its serial number, hexadecimal.
    pub serial: String,
    /// Whom it names.
    pub identity: SpiffeId,
    /// The end of its validity, in seconds since 1970.
    pub not_after: u64,
}

impl Records {
    /// Notes a certificate that was signed for a node. An audit trail, not a decision: in a hub's own file it may wait for
    /// the next durable step, some seconds.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn note_serial(
        &self,
        node: &str,
        serial: &str,
        identity: &SpiffeId,
        not_after: SystemTime,
    ) -> Result<(), StoreError> {
        let key = format!("{SERIALS}{node}");
        let now = seconds(SystemTime::now());
        loop {
            let known = self.store.get(&key).await?;
            let mut signed: Vec<SignedCertificate> =
                known.as_ref().map(parse).transpose()?.unwrap_or_default();
            signed.retain(|certificate| certificate.not_after > now);
            signed.drain(..(signed.len() + 1).saturating_sub(MAX_SERIALS));
            signed.push(SignedCertificate {
                serial: serial.to_owned(),
                identity: identity.clone(),
                not_after: seconds(not_after),
            });
            let expected = known.map_or(Expected::Absent, |entry| Expected::Version(entry.version));
            let put = Put { may_be_lost: true, ..Put::durable(encode(&signed)?) };
            if self.store.swap(&key, expected, Some(put)).await? {
                return Ok(());
            }
            overtaken().await;
        }
    }

    /// The certificates that were signed for a node, the valid ones and those that expired since the last of them.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn signed_for(&self, node: &str) -> Result<Vec<SignedCertificate>, StoreError> {
        let known = self.store.get(&format!("{SERIALS}{node}")).await?;
        Ok(known.as_ref().map(parse).transpose()?.unwrap_or_default())
    }

    /// Forgets the trail of nodes whose certificates have all expired, as far as it can be read.
    pub(super) async fn sweep_serials(&self, now: SystemTime) -> Result<(), StoreError> {
        let now = seconds(now);
        for entry in self.store.list(SERIALS).await? {
            let Ok(signed) = parse::<Vec<SignedCertificate>>(&entry) else { continue };
            if signed.iter().all(|certificate| certificate.not_after <= now) {
                self.store.swap(&entry.key, Expected::Version(entry.version), None).await?;
            }
        }
        Ok(())
    }
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
