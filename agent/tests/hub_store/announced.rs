//! What hosts announce at two hubs that share a store: known at both, there as long as the host is at either, and announced
//! again when the store lost it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use serde_json::Value;
use weft_agent::{
    admin::client::AdminClient,
    config::{Overrides, load_hub},
    hub::{Hub, authority::AuthorityFolder, store::Expected, token::Token},
    identity::{HubIdentity, IdentitySettings, join::join},
};
use weft_core::{
    identity::{SpiffeId, TrustDomain},
    name::RegistryName,
    registry::{LocalInstance, Registry},
    resource::{AppProtocol, Endpoint, Health, Labels, SaidBy, Sayer, ServicePort, TlsMode},
};
use weft_registries::hub::{HubRegistry, LinkState};

use crate::support::{blocking, client, eventually};

/// As long as an announcement stays without its host.
const GRACE: Duration = Duration::from_secs(5);
/// How soon it is noticed that the store gives no answer: a renewal of its lease, and the time that a leader is chosen in.
const NOTICED: Duration = Duration::from_secs(30);

async fn start(folder: &Path, name: &str, section: &str) -> Hub {
    let path = |name: &str| folder.join(name);
    let text = format!(
        "listen = \"127.0.0.1:0\"\nstate_dir = {:?}\nrun_dir = {:?}\n[admin]\nlisten = \"off\"\n\
         [announcements]\nallow_loopback = true\ngrace = \"{}s\"\n[store]\n{section}",
        path(name),
        path(&format!("{name}-run")),
        GRACE.as_secs(),
    );
    let file: PathBuf = path(&format!("{name}.toml"));
    std::fs::write(&file, text).unwrap();
    let (config, _) = load_hub(&file, &Overrides::default()).unwrap();
    Hub::start(&config).await.unwrap()
}

/// What a hub says of itself.
async fn status(folder: &Path, hub: &str) -> Option<Value> {
    AdminClient::new(&folder.join(hub).join("hub.sock")).get("/status").await.ok()
}

/// What it says of the registry of what hosts announce.
async fn row(folder: &Path, hub: &str) -> Option<Value> {
    let status = status(folder, hub).await?;
    status["registries"].as_array()?.iter().find(|row| row["scope"] == "announced").cloned()
}

/// How many endpoints a hub relays that hosts have announced, and what it complains of.
async fn relayed(folder: &Path, hub: &str) -> Option<(u64, String)> {
    let status = status(folder, hub).await?;
    let row = row(folder, hub).await?;
    let complaints = format!("{}{}", row["faults"], status["diagnostics"]);
    Some((row["counts"]["endpoints"].as_u64().unwrap_or_default(), complaints))
}

/// An agent that joined at one hub and knows both.
async fn agent(folder: &Path, node: &str, account: &str, hubs: &[&Hub]) -> HubIdentity {
    let query = format!("/tokens?node={node}&identity=spiffe://demo.mesh/ns/default/sa/{account}");
    let answer: Value = AdminClient::new(&folder.join("one/hub.sock")).post(&query).await.unwrap();
    let token = Token::parse(answer["token"].as_str().unwrap()).unwrap();
    let hubs: Vec<_> = hubs.iter().map(|hub| hub.address().to_string()).collect();
    let state_dir = folder.join(node);
    join(&state_dir, &token, Some(&hubs[0]), None).await.unwrap();
    let none = tokio::sync::watch::channel(Arc::from([])).1;
    HubIdentity::start(IdentitySettings { state_dir, hubs }, none).unwrap()
}

fn instance(node: &str, account: &str) -> Arc<LocalInstance> {
    let address = |port: u16| ([127, 0, 0, 1], port).into();
    let endpoint = Endpoint {
        service: "reviews.default".parse().unwrap(),
        port_name: "http".parse().unwrap(),
        instance: format!("{node}.app").parse().unwrap(),
        address: address(8080),
        mesh_address: Some(address(15008)),
        identity: Some(SpiffeId::parse(&format!("spiffe://demo.mesh/ns/default/sa/{account}")).unwrap()),
        said_by: SaidBy::all(Sayer::Metadata),
        tls: TlsMode::Required,
        labels: Labels::default(),
        weight: 1,
        locality: Default::default(),
        health: Health::Healthy,
    };
    let port = ServicePort { name: "http".parse().unwrap(), number: 80, protocol: AppProtocol::Http };
    Arc::new(LocalInstance { endpoint, port, note: String::new() })
}

/// Announces at two hubs that share the store of this section.
pub(crate) async fn at_two_hubs(section: &str) {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let domain = TrustDomain::new("demo.mesh").unwrap();
    AuthorityFolder::of_state(&folder.join("one")).initialise(&domain, SystemTime::now()).unwrap();
    let folders = [folder.join("one"), folder.join("two")];
    assert!(std::process::Command::new("cp").arg("-rp").args(folders).status().unwrap().success());
    let (one, two) = (start(folder, "one", section).await, start(folder, "two", section).await);
    let both = |count: u64| async move {
        for hub in ["one", "two"] {
            eventually(&format!("{count} endpoints at hub {hub}"), async || {
                relayed(folder, hub).await.is_some_and(|(known, _)| known == count)
            })
            .await;
        }
    };
    let name = || RegistryName::new("hub").unwrap();
    let agents = [
        agent(folder, "a", "reviews", &[&one, &two]).await,
        agent(folder, "b", "reviews", &[&two, &one]).await,
        agent(folder, "c", "bank", &[&two, &one]).await,
    ];
    let registries = agents.each_ref().map(|agent| HubRegistry::new(name(), agent.link().clone()));
    let mut leases = vec![
        registries[0].register(instance("a", "reviews")).unwrap(),
        registries[1].register(instance("b", "reviews")).unwrap(),
    ];
    both(2).await;
    // Another hub's service is nobody else's there either, and the operator sees who wanted it.
    let refused = registries[2].register(instance("c", "bank")).unwrap();
    eventually("the conflict is shown", async || {
        relayed(folder, "two").await.is_some_and(|(_, said)| said.contains("node c cannot announce it as"))
    })
    .await;
    refused.leave();

    // Its hub goes, and the host with what it announces goes over to the other one.
    one.stop().await;
    let mut state = agents[0].link().state();
    let address = two.address().to_string();
    let at_two =
        state.wait_for(|state| matches!(state, LinkState::Connected { hub, .. } if **hub == *address));
    tokio::time::timeout(Duration::from_secs(60), at_two).await.unwrap().unwrap();
    let one = start(folder, "one", section).await;
    both(2).await;

    // The store loses it, as one does that goes back to an older snapshot.
    let store = client(section);
    for key in ["announced/reviews.default/http/a.app", "owners/reviews.default"] {
        assert!(store.swap(key, Expected::Any, None).await.unwrap());
    }
    for hub in ["one", "two"] {
        eventually("it is lost", async || relayed(folder, hub).await.is_some_and(|(known, _)| known == 1))
            .await;
    }
    both(2).await;
    eventually("whose it is is known again", async || {
        store.get("owners/reviews.default").await.unwrap().is_some()
    })
    .await;
    // What is there longer than the grace stays, at both.
    tokio::time::sleep(GRACE * 2).await;
    both(2).await;
    drop(leases.pop());
    both(1).await;
    drop(leases.pop());
    both(0).await;
    two.stop().await;
    one.stop().await;
}

/// A store that lost its quorum answers no question, and one member of it may go on to tell that nothing changes. `lose` and
/// `heal` block.
pub(crate) async fn without_a_quorum(section: &str, lose: impl FnOnce(), heal: impl FnOnce()) {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let domain = TrustDomain::new("demo.mesh").unwrap();
    AuthorityFolder::of_state(&folder.join("one")).initialise(&domain, SystemTime::now()).unwrap();
    let hub = start(folder, "one", section).await;
    let agent = agent(folder, "a", "reviews", &[&hub]).await;
    let registry = HubRegistry::new(RegistryName::new("hub").unwrap(), agent.link().clone());
    let lease = registry.register(instance("a", "reviews")).unwrap();
    let is_one = async || relayed(folder, "one").await.is_some_and(|(known, _)| known == 1);
    eventually("it is announced", is_one).await;
    blocking(lose);
    let (killed, mut slowest) = (Instant::now(), Duration::ZERO);
    loop {
        let asked = Instant::now();
        let row = row(folder, "one").await;
        slowest = slowest.max(asked.elapsed());
        let row = row.expect("a hub answers whatever its store does");
        assert_eq!(row["counts"]["endpoints"], 1, "{row}");
        if row["state"] == "away" {
            break;
        }
        assert!(killed.elapsed() < NOTICED, "it is not noticed that the store is gone: {row}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let told = AdminClient::new(&folder.join("one/hub.sock")).get::<Value>("/nodes").await;
    eprintln!("noticed after {:?}, the slowest page took {slowest:?}: {told:?}", killed.elapsed());
    blocking(heal);
    eventually("the store is back", async || {
        row(folder, "one").await.is_some_and(|row| row["state"] == "connected")
    })
    .await;
    assert!(is_one().await);
    lease.withdraw().await;
    hub.stop().await;
}
