//! `weft ca issue`: certificates without a hub, for hosts that follow files.

use std::{
    io::{self, Write},
    path::PathBuf,
    time::{Duration, SystemTime},
};

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, pem::PemObject};
use weft_core::{identity::SpiffeId, name::WorkloadName};

use super::{StateOptions, parse_span};
use crate::{
    files::{make_private_folder, read_text, write_private},
    hub::authority::ProvenRequest,
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    state: StateOptions,
    /// Whom the certificate names
    #[arg(long, value_parser = SpiffeId::parse, value_name = "SPIFFE-ID")]
    identity: SpiffeId,
    /// The workload's name in the agent's configuration, which names the files; the account when not given
    #[arg(long, value_parser = WorkloadName::new, value_name = "NAME")]
    name: Option<WorkloadName>,
    /// Where to put NAME.key, NAME.pem and bundle.pem
    #[arg(long, value_name = "FOLDER")]
    directory: PathBuf,
    /// A signing request (PEM) made where the key is; without it a key is made here
    #[arg(long, value_name = "FILE")]
    request: Option<PathBuf>,
    /// How long the certificate is valid
    #[arg(long, default_value = "24h", value_parser = parse_span, value_name = "SPAN")]
    ttl: Duration,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let now = SystemTime::now();
    let authority = args.state.authority().open(args.ttl, now)?;
    let name = args.name.as_ref().map_or_else(|| args.identity.account(), WorkloadName::as_str);
    make_private_folder(&args.directory)?;
    let (request, key) = match &args.request {
        Some(path) => (CertificateSigningRequestDer::from_pem_slice(read_text(path)?.as_bytes())?, None),
        None => {
            let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
            (CertificateParams::default().serialize_request(&key)?.der().clone(), Some(key))
        }
    };
    let issued = authority.issue(&args.identity, &ProvenRequest::read(&request)?, now)?;
    write_private(&args.directory.join("bundle.pem"), to_pem(authority.roots()).as_bytes())?;
    if let Some(key) = key {
        write_private(&args.directory.join(format!("{name}.key")), key.serialize_pem().as_bytes())?;
    }
    // Last: whoever follows the files takes the pair when the certificate changes.
    let path = args.directory.join(format!("{name}.pem"));
    write_private(&path, to_pem(&issued.chain).as_bytes())?;
    writeln!(io::stdout(), "{}: {} serial {}", path.display(), issued.identity, issued.serial)?;
    Ok(())
}

fn to_pem(certificates: &[CertificateDer<'_>]) -> String {
    crate::files::to_pem("CERTIFICATE", certificates.iter().map(AsRef::as_ref))
}
