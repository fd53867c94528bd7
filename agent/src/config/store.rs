//! `[store]`: where a hub keeps the records that it shares with others.

use std::path::PathBuf;

use weft_core::config::{Fault, Section};
use weft_registries::{credential::Credential, http_client::ServerSettings, kubernetes::api::Access};

/// With what all keys begin when the file does not say.
const DEFAULT_PREFIX: &str = "weft/";
/// The namespace of the objects when the file does not say.
const DEFAULT_NAMESPACE: &str = "weft-system";

/// Where a hub keeps the records that it shares with others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreConfig {
    /// In its own file: there is no other hub.
    Embedded,
    /// In a store that the team already runs.
    Shared {
        /// With what all keys begin.
        prefix: String,
        /// Which store.
        server: SharedStore,
    },
}

/// A store that several hubs share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SharedStore {
    /// etcd, version 3.
    Etcd {
        /// Its members.
        servers: Vec<ServerSettings>,
        /// The user, with the file that holds the password; none where etcd asks for none.
        login: Option<(String, PathBuf)>,
    },
    /// Consul's KV.
    Consul {
        /// Its agents or servers.
        servers: Vec<ServerSettings>,
        /// The token.
        credential: Credential,
    },
    /// Objects of Kubernetes.
    Kubernetes {
        /// Where the API server is, and who asks.
        access: Access,
        /// The namespace of the objects.
        namespace: String,
    },
}

#[derive(Clone, Copy)]
enum Kind {
    Embedded,
    Etcd,
    Consul,
    Kubernetes,
}

/// Reads the section.
pub(super) fn read(root: &Section<'_>) -> Option<StoreConfig> {
    let Some(mut section) = root.section("store") else { return Some(StoreConfig::Embedded) };
    let words = [
        ("embedded", Kind::Embedded),
        ("etcd", Kind::Etcd),
        ("consul", Kind::Consul),
        ("kubernetes", Kind::Kubernetes),
    ];
    let kind = section.get("kind").map_or(Some(Kind::Embedded), |value| value.word(&words));
    let Some(kind) = kind else {
        section.ignore_unknown();
        return None;
    };
    let server = match kind {
        Kind::Embedded => return Some(StoreConfig::Embedded),
        Kind::Etcd => etcd(&section),
        Kind::Consul => consul(&section),
        Kind::Kubernetes => kubernetes(&section),
    };
    let prefix = match section.get("prefix") {
        Some(value) => {
            value.parse("text of up to 100 letters, digits and \"-_./\", such as \"weft/\"", prefix)?
        }
        None => DEFAULT_PREFIX.to_owned(),
    };
    Some(StoreConfig::Shared { prefix, server: server? })
}

fn prefix(text: &str) -> Result<String, &'static str> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
    match text.len() <= 100 && text.bytes().all(is_plain) && !text.contains("..") {
        true => Ok(text.to_owned()),
        false => Err("this cannot be the beginning of every key"),
    }
}

fn etcd(section: &Section<'_>) -> Option<SharedStore> {
    let servers = ServerSettings::read_several(section, "http://127.0.0.1:2379");
    let user: Option<String> = section.read("username");
    let password: Option<PathBuf> = section.read("password_file");
    if user.is_some() != password.is_some() {
        let (written, lacking) =
            if user.is_some() { ("username", "password_file") } else { ("password_file", "username") };
        let fault = Fault::error(section.key_place(written), format!("`{written}` without `{lacking}`"));
        section.report(fault.expected("expected both or none"));
        return None;
    }
    if let (Some(servers), Some(_)) = (&servers, &password) {
        ServerSettings::warn_of_overheard(section, servers, &["password_file"], "password_file");
    }
    Some(SharedStore::Etcd { servers: servers?, login: user.zip(password) })
}

fn consul(section: &Section<'_>) -> Option<SharedStore> {
    let servers = ServerSettings::read_several(section, "http://127.0.0.1:8500");
    let credential = weft_registries::consul::credential(section);
    if let (Some(servers), Some(Credential::File(_) | Credential::Variable(_))) = (&servers, &credential) {
        let keys = ["token_file", "token_env"];
        ServerSettings::warn_of_overheard(section, servers, &keys, "CONSUL_HTTP_TOKEN");
    }
    Some(SharedStore::Consul { servers: servers?, credential: credential? })
}

fn kubernetes(section: &Section<'_>) -> Option<SharedStore> {
    let kubeconfig: Option<PathBuf> = section.read("kubeconfig");
    let context: Option<String> = section.read("context");
    let namespace: Option<weft_core::name::Namespace> = section.read("namespace");
    if context.is_some() && kubeconfig.is_none() {
        let fault = Fault::error(section.key_place("context"), "`context` without `kubeconfig`");
        section.report(fault.expected("expected the file that has the context, kubeconfig = \"…\""));
        return None;
    }
    let namespace = namespace.map_or_else(|| DEFAULT_NAMESPACE.to_owned(), |namespace| namespace.to_string());
    Some(SharedStore::Kubernetes { access: Access { kubeconfig, context }, namespace })
}
