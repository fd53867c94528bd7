//! A peer that keeps no rule: shows any certificate, believes anybody, and sends at once.

use std::sync::Arc;

use rustls::{ClientConfig, ServerConfig, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncWriteExt, duplex};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use weft_core::{identity::SpiffeId, wire::Framing};

use crate::{
    credulous::{Anybody, Shows},
    meeting::{Agent, Meeting, Outcome, REQUEST, RESPONSE, accept, dial, read_all},
};

/// A client that speaks every version and any framing.
pub(crate) fn client_config(shows: Option<CertifiedKey>, alpn: &[&str]) -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_client_cert_resolver(Arc::new(Shows(shows.map(Arc::new))));
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}

fn server_config(shows: CertifiedKey) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(Arc::new(Anybody))
        .with_cert_resolver(Arc::new(Shows(Some(Arc::new(shows)))));
    config.alpn_protocols = vec![Framing::Http2.alpn().as_bytes().to_vec()];
    Arc::new(config)
}

/// The rogue dials `expected` at an agent and sends without asking.
pub(crate) async fn rogue_dials(config: Arc<ClientConfig>, expected: &SpiffeId, server: &Agent) -> Meeting {
    let (near, far) = duplex(64 * 1024);
    let rogue = async {
        let name = ServerName::try_from(expected.server_name()).unwrap();
        match TlsConnector::from(config).connect(name, near).await {
            Err(error) => Outcome::failed(error),
            Ok(mut tls) => {
                let mut outcome = Outcome::met(tls.get_ref().1);
                let _ = tls.write_all(REQUEST).await;
                let _ = tls.flush().await;
                read_all(&mut tls, &mut outcome).await;
                outcome
            }
        }
    };
    let check = |chain: &[CertificateDer<'_>]| server.context.check_client(chain, UnixTime::now());
    let (client, server) = tokio::join!(rogue, accept(server.context.server_config(), far, check));
    Meeting { client, server }
}

/// An agent's `own` dials `expected`, and the rogue answers and sends without asking.
pub(crate) async fn rogue_answers(
    client: &Agent,
    own: &SpiffeId,
    expected: &SpiffeId,
    shows: CertifiedKey,
) -> Meeting {
    let (near, far) = duplex(64 * 1024);
    let rogue = async {
        match TlsAcceptor::from(server_config(shows)).accept(far).await {
            Err(error) => Outcome::failed(error),
            Ok(mut tls) => {
                let mut outcome = Outcome::met(tls.get_ref().1);
                let _ = tls.write_all(RESPONSE).await;
                let _ = tls.flush().await;
                read_all(&mut tls, &mut outcome).await;
                outcome
            }
        }
    };
    let config = client.context.client_config(own, Framing::Http2).unwrap();
    let check = |chain: &[CertificateDer<'_>]| client.context.check_server(chain, expected, UnixTime::now());
    let (client, server) = tokio::join!(dial(config, expected.server_name(), near, check), rogue);
    Meeting { client, server }
}
