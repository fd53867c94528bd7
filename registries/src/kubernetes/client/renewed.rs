//! A client that a credential plugin gives a certificate: who asks is decided as a connection is made, so with a new
//! certificate questions are put on new connections. What is being answered on old ones, a watch above all, goes on there.

use std::sync::{Arc, Mutex, PoisonError};

use kube::Config;
use weft_core::registry::RegistryError;

use super::{
    bearer::Bearer,
    config::stack,
    plugin::{Certificate, Plugin},
    proxy::Proxy,
};

/// One whose certificate may be another by the next question.
pub(super) struct Renewed {
    config: Config,
    proxy: Option<Proxy>,
    plugin: Arc<Plugin>,
    made: Mutex<Made>,
}

struct Made {
    certificate: Option<Certificate>,
    client: kube::Client,
}

impl Renewed {
    /// Asks the plugin, and makes the first client.
    ///
    /// # Errors
    /// Says which plugin gave no credential, or what of it is of no use.
    pub(super) async fn new(
        mut config: Config,
        proxy: Option<Proxy>,
        plugin: Arc<Plugin>,
    ) -> Result<Self, RegistryError> {
        // It is asked by us alone.
        config.auth_info.exec = None;
        let certificate = plugin.certificate().await?;
        let client = make(&config, proxy.as_ref(), &plugin, certificate.as_ref())?;
        Ok(Self { config, proxy, plugin, made: Mutex::new(Made { certificate, client }) })
    }

    /// The client for the next question.
    ///
    /// # Errors
    /// As above.
    pub(super) async fn client(&self) -> Result<kube::Client, RegistryError> {
        let certificate = self.plugin.certificate().await?;
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if made.certificate != certificate {
            let client = make(&self.config, self.proxy.as_ref(), &self.plugin, certificate.as_ref())?;
            *made = Made { certificate, client };
        }
        Ok(made.client.clone())
    }
}

fn make(
    config: &Config,
    proxy: Option<&Proxy>,
    plugin: &Arc<Plugin>,
    certificate: Option<&Certificate>,
) -> Result<kube::Client, RegistryError> {
    let mut config = config.clone();
    if let Some(certificate) = certificate {
        certificate.put_into(&mut config.auth_info);
    }
    stack(&config, proxy, Some(Bearer::Plugin(plugin.clone())))
}
