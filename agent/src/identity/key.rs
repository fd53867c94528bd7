//! Keys, made where they are used, and the requests that prove them.

use bytes::Bytes;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use weft_core::tls::{Certificate, CertificateError, read_pem};

use crate::files::to_pem;

/// A private key of P-256.
pub(super) struct Key(KeyPair);

impl Key {
    pub(super) fn generate() -> Result<Self, rcgen::Error> {
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map(Self)
    }

    pub(super) fn from_pem(text: &str) -> Result<Self, rcgen::Error> {
        KeyPair::from_pem(text).map(Self)
    }

    pub(super) fn to_pem(&self) -> String {
        self.0.serialize_pem()
    }

    /// A request that proves the key and asks for nothing else.
    pub(super) fn signing_request(&self) -> Result<Bytes, rcgen::Error> {
        let request = CertificateParams::default().serialize_request(&self.0)?;
        Ok(Bytes::copy_from_slice(request.der()))
    }

    /// The certificate that was signed for this key, and both as one text: one file is replaced in one step, so a crash
    /// never leaves a key beside another's certificate.
    pub(super) fn with_chain(&self, chain: &[Bytes]) -> Result<(Certificate, String), CertificateError> {
        let text = self.to_pem() + &to_pem("CERTIFICATE", chain.iter().map(AsRef::as_ref));
        let chain = chain.iter().map(|der| CertificateDer::from(der.to_vec())).collect();
        let key = PrivateKeyDer::Pkcs8(self.0.serialize_der().into());
        Ok((Certificate::new(chain, key)?, text))
    }
}

/// Reads what [`Key::with_chain`] wrote.
pub(super) fn read_key_and_chain(text: &str) -> Result<Certificate, String> {
    let blocks = read_pem(text).map_err(|fault| fault.to_string())?;
    let (keys, chain): (Vec<_>, Vec<_>) = blocks.into_iter().partition(|block| block.label == "PRIVATE KEY");
    let [key] = <[_; 1]>::try_from(keys).map_err(|_| "it holds not exactly one private key".to_owned())?;
    let chain = chain.into_iter().map(|block| CertificateDer::from(block.content)).collect();
    let key = PrivateKeyDer::Pkcs8(key.content.into());
    Certificate::new(chain, key).map_err(|fault| fault.to_string())
}
