//! A hub process that is killed over and over while hosts join: no token ever buys two keys.
//!
//! It catches what it is for. A store that judges a claim in one transaction and writes the binding in another, and one that
//! answers before the binding is on the disk, both fail here with "bought 2 keys", within seconds and at every run: the first
//! because two keys ask for each token at the same time, the second because the kill comes between answer and disk.
#![allow(clippy::unwrap_used)]

#[path = "support/support.rs"]
mod support;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use support::until;
use weft_agent::hub::{
    authority::{AuthorityFolder, DEFAULT_LEAF_LIFETIME},
    operator::{TokenWish, create_token},
    records::Records,
    store::EmbeddedStore,
    token::Token,
};
use weft_core::{
    control::{VERSIONS, message::JoinRequest},
    identity::TrustDomain,
    tls::RootPin,
};
use weft_registries::hub::join;
use x509_parser::prelude::FromDer;

/// How often the hub is killed.
const KILLS: usize = 50;
/// How many keys ask for each token at the same time.
const RIVALS: usize = 2;

/// A hub process, killed when it goes out of scope.
struct HubProcess(Child);

impl HubProcess {
    fn start(config: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weft"));
        command.args(["--end-with-stdin", "hub", "--config"]).arg(config);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }

    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for HubProcess {
    fn drop(&mut self) {
        // It may have ended already.
        let _killed = self.0.kill();
        let _waited = self.0.wait();
    }
}

/// Makes the authority and the tokens before the first hub starts.
async fn prepare(folder: &Path, address: SocketAddr) -> (PathBuf, Vec<Token>) {
    let state = folder.join("hub");
    let authority = AuthorityFolder::of_state(&state);
    let domain = TrustDomain::new("demo.mesh").unwrap();
    authority.initialise(&domain, SystemTime::now()).unwrap();
    let root = authority.open(DEFAULT_LEAF_LIFETIME, SystemTime::now()).unwrap().roots()[0].to_vec();
    let records = Records::new(Arc::new(EmbeddedStore::open(&state).unwrap()));
    let mut tokens = Vec::new();
    for _ in 0..2 * KILLS {
        let lifetime = Duration::from_secs(3600);
        let wish = TokenWish { identities: Vec::new(), node: None, lifetime, hub: address.to_string() };
        tokens.push(create_token(&records, &domain, &root, &wish).await.unwrap());
    }
    let config = folder.join("hub.toml");
    let text = format!(
        "listen = \"{address}\"\nstate_dir = {state:?}\nrun_dir = {:?}\n[admin]\nlisten = \"off\"\n",
        folder.join("run")
    );
    std::fs::write(&config, text).unwrap();
    (config, tokens)
}

/// Asks again and again with one key, until the hub says yes or no; gives the key that was certified.
async fn ask(token: &Token, node: &str, answered: &AtomicUsize, over: &AtomicBool) -> Option<Vec<u8>> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let request = CertificateParams::default().serialize_request(&key).unwrap();
    while !over.load(Ordering::Relaxed) {
        let request = JoinRequest {
            secret: token.secret.to_vec().into(),
            node: node.to_owned(),
            signing_request: Bytes::copy_from_slice(request.der()),
            lowest_version: VERSIONS.0,
            highest_version: VERSIONS.1,
        };
        match join(&token.hub, RootPin::from(token.root_pin), &token.trust_domain, request).await {
            Ok(answer) => {
                answered.fetch_add(1, Ordering::Relaxed);
                let leaf = x509_parser::certificate::X509Certificate::from_der(&answer.chain[0]).unwrap().1;
                let certified = leaf.public_key().subject_public_key.data.to_vec();
                assert_eq!(certified, key.der_bytes(), "the key that asked is the key that was certified");
                return Some(certified);
            }
            Err(weft_registries::hub::JoinError::Refused(_)) => return None,
            // Killed meanwhile, or not there yet.
            Err(_) => wait_for_the_port(token.hub.parse().unwrap()),
        }
    }
    None
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_killed_fifty_times_during_joins_never_signs_two_keys_for_one_token() {
    let folder = tempfile::tempdir().unwrap();
    let address = support::address();
    let (config, tokens) = prepare(folder.path(), address).await;
    let (answered, over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let begun = Instant::now();
    let mut kills = 0;
    let mut bought = BTreeMap::<usize, Vec<Vec<u8>>>::new();
    let mut hub = HubProcess::start(&config);
    let mut next = 0;
    while kills < KILLS {
        // Two tokens are asked for at a time, by two keys each; the hub dies somewhere among the answers.
        let mut asking = tokio::task::JoinSet::new();
        let before = answered.load(Ordering::Relaxed);
        for index in [next, next + 1] {
            for rival in 0..RIVALS {
                let (token, answered, over) = (tokens[index].clone(), answered.clone(), over.clone());
                let node = format!("node-{index}-{rival}");
                asking.spawn(async move { (index, ask(&token, &node, &answered, &over).await) });
            }
        }
        next += 2;
        let dies_after = fastrand::u64(0..12_000);
        wait_for_the_port(address);
        tokio::time::sleep(Duration::from_micros(dies_after)).await;
        hub.kill();
        kills += 1;
        hub = HubProcess::start(&config);
        while let Some(outcome) = asking.join_next().await {
            let (index, key) = outcome.unwrap();
            bought.entry(index).or_default().extend(key);
        }
        assert!(answered.load(Ordering::Relaxed) > before, "somebody got a certificate in each round");
        assert!(begun.elapsed() < Duration::from_secs(600), "{kills} kills took too long");
    }
    for (index, keys) in &bought {
        assert_eq!(keys.len(), 1, "token {index} bought {} keys", keys.len());
    }
    println!("{} tokens, {kills} kills, {:.1} s", bought.len(), begun.elapsed().as_secs_f64());
}

/// Waits until somebody listens, without saying a word.
fn wait_for_the_port(address: SocketAddr) {
    tokio::task::block_in_place(|| until("the hub listens", || std::net::TcpStream::connect(address).ok()));
}
