//! What every registry is asked, by what it declares that it can.

use std::time::{Duration, Instant};

use tokio::task::block_in_place;
use weft_core::{
    identity::SpiffeId,
    registry::{Completeness, LocalInstance},
    resource::{AppProtocol, Endpoint, Health, ServicePort, TlsMode},
};

use crate::{
    bed::{Bed, identity},
    follower::Follower,
    report::{Outcome, Report},
};

/// How soon a change is told, by the slowest of them: catalogs that are polled for health.
const SOON: Duration = Duration::from_secs(30);
/// How soon it is all told after the server is back.
const BACK: Duration = Duration::from_secs(30);
/// How long a quiet registry may be without a word.
const QUIET: Duration = Duration::from_secs(45);

type Checked = Result<(), String>;

/// Asks everything of one backend, each thing in the state that the one before left.
pub(crate) async fn run(kind: &str, bed: &mut dyn Bed, report: &mut Report) {
    let capabilities = bed.registry().capabilities();
    let began = Instant::now();
    block_in_place(|| {
        bed.scale("web", 2);
        bed.scale("api", 1);
    });
    let mut follower = Follower::new(bed.registry(), None);
    note(report, kind, "list", began, list(&mut follower).await);
    let began = Instant::now();
    note(report, kind, "rights", began, rights(bed).await);
    let began = Instant::now();
    note(report, kind, "change", began, change(bed, &mut follower).await);
    let began = Instant::now();
    note(report, kind, "removal", began, removal(bed, &mut follower).await);
    let began = Instant::now();
    note(report, kind, "still true", began, quiet(&mut follower).await);
    let began = Instant::now();
    match capabilities.health {
        true => note(report, kind, "health", began, health(bed, &mut follower).await),
        false => skip(report, kind, "health"),
    }
    let began = Instant::now();
    match capabilities.configuration {
        true => note(report, kind, "configuration", began, configuration(bed, &mut follower).await),
        false => skip(report, kind, "configuration"),
    }
    let began = Instant::now();
    match capabilities.register {
        true => note(report, kind, "register", began, register(bed, &mut follower).await),
        false => skip(report, kind, "register"),
    }
    let began = Instant::now();
    match capabilities.resume {
        true => note(report, kind, "resume", began, resume(bed, &mut follower).await),
        false => skip(report, kind, "resume"),
    }
    let began = Instant::now();
    note(report, kind, "outage", began, outage(bed, &mut follower).await);
}

fn note(report: &mut Report, kind: &str, capability: &'static str, began: Instant, checked: Checked) {
    let outcome = checked.map_or_else(Outcome::Failed, |()| Outcome::Passed);
    report.add(kind, capability, outcome, began.elapsed());
}

fn skip(report: &mut Report, kind: &str, capability: &'static str) {
    report.add(kind, capability, Outcome::Skipped("not declared".into()), Duration::ZERO);
}

fn hold(holds: bool, what: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(what()) }
}

/// The first list is whole, and says of every endpoint how and as whom it is reached.
async fn list(follower: &mut Follower) -> Checked {
    follower
        .until("two instances of web and one of api", SOON, |view| {
            view.count("web") == 2 && view.count("api") == 1
        })
        .await?;
    let completeness = follower.view(|view| view.seen.completeness);
    hold(completeness == Some(Completeness::Full), || format!("the list is {completeness:?}"))?;
    for endpoint in follower.view(|view| view.endpoints("web")).unwrap_or_default() {
        let mesh = endpoint.mesh_address.as_ref().map(|mesh| mesh.socket().port());
        hold(mesh == Some(15008), || format!("the mesh address is {:?}", endpoint.mesh_address))?;
        let named = endpoint.identity.as_ref().map(ToString::to_string);
        hold(named == Some(identity("web")), || format!("the identity is {named:?}"))?;
    }
    Ok(())
}

/// What it needs is there, as far as it can tell.
async fn rights(bed: &mut dyn Bed) -> Checked {
    let rights = bed.registry().rights().await.map_err(|error| error.to_string())?;
    match rights.iter().find(|right| right.given == Some(false) && !right.optional) {
        Some(missing) => Err(format!("{missing:?}")),
        None => Ok(()),
    }
}

async fn change(bed: &mut dyn Bed, follower: &mut Follower) -> Checked {
    block_in_place(|| bed.scale("web", 3));
    follower.until("three instances of web", SOON, |view| view.count("web") == 3).await?;
    block_in_place(|| bed.scale("web", 1));
    follower.until("one instance of web", SOON, |view| view.count("web") == 1).await?;
    hold(follower.view(|view| view.count("api")) == 1, || "the other service changed too".into())
}

async fn removal(bed: &mut dyn Bed, follower: &mut Follower) -> Checked {
    block_in_place(|| bed.scale("late", 1));
    follower.until("a service that came later", SOON, |view| view.count("late") == 1).await?;
    block_in_place(|| bed.scale("late", 0));
    follower.until("the service is gone", SOON, |view| view.count("late") == 0).await
}

/// Where nothing happens, it says so: what nobody confirms grows old.
async fn quiet(follower: &mut Follower) -> Checked {
    let before = follower.view(|view| view.seen.commits);
    follower.until("it says that all is still true", QUIET, |view| view.seen.commits > before).await
}

async fn health(bed: &mut dyn Bed, follower: &mut Follower) -> Checked {
    block_in_place(|| bed.scale("web", 2));
    let is = |endpoints: Option<Vec<_>>, healthy: usize| {
        let endpoints: Vec<std::sync::Arc<Endpoint>> = endpoints.unwrap_or_default();
        endpoints.len() == 2 && endpoints.iter().filter(|it| it.health == Health::Healthy).count() == healthy
    };
    follower.until("two healthy instances", SOON, |view| is(view.endpoints("web"), 2)).await?;
    block_in_place(|| bed.ail("web", true));
    follower
        .until("one unhealthy instance that is still listed", SOON, |view| is(view.endpoints("web"), 1))
        .await?;
    block_in_place(|| bed.ail("web", false));
    follower.until("two healthy instances again", SOON, |view| is(view.endpoints("web"), 2)).await?;
    block_in_place(|| bed.scale("web", 1));
    follower.until("one instance again", SOON, |view| view.count("web") == 1).await
}

async fn configuration(bed: &mut dyn Bed, follower: &mut Follower) -> Checked {
    block_in_place(|| bed.route("web"));
    follower.until("the route `by-header`", SOON, |view| view.has_route("by-header")).await
}

/// What is announced is there for everybody, and gone with its lease.
async fn register(bed: &mut dyn Bed, follower: &mut Follower) -> Checked {
    let endpoint = Endpoint {
        service: "announced.default".parse().map_err(|error| format!("{error}"))?,
        port_name: "http".parse().map_err(|error| format!("{error}"))?,
        instance: "announced-1".parse().map_err(|error| format!("{error}"))?,
        address: ([10, 9, 9, 9], 8080).into(),
        mesh_address: Some(([10, 9, 9, 9], 15008).into()),
        identity: SpiffeId::parse(&identity("announced")).ok(),
        said_by: Default::default(),
        tls: TlsMode::Required,
        labels: [("version", "v1")].into_iter().collect(),
        weight: 1,
        locality: Default::default(),
        health: Health::Healthy,
    };
    let port = ServicePort { name: endpoint.port_name.clone(), number: 80, protocol: AppProtocol::Http };
    let instance = LocalInstance { endpoint, port, note: String::new() };
    let lease = bed.registry().register(instance.into()).map_err(|error| error.to_string())?;
    follower.until("the announced instance", SOON, |view| view.count("announced") == 1).await?;
    let told = follower.view(|view| view.endpoints("announced")).unwrap_or_default();
    let (mesh, named) = (told[0].mesh_address.clone(), told[0].identity.as_ref().map(ToString::to_string));
    let whole = mesh == Some(([10, 9, 9, 9], 15008).into()) && named == Some(identity("announced"));
    hold(whole, || format!("what came back is {:?}", told[0]))?;
    drop(lease);
    follower.until("the announced instance is withdrawn", SOON, |view| view.count("announced") == 0).await
}

/// From a point it goes on without a list, and misses nothing that happened meanwhile.
async fn resume(bed: &mut dyn Bed, follower: &mut Follower) -> Checked {
    let point = follower.resume().ok_or("it gave no point to go on from")?;
    block_in_place(|| bed.scale("web", 2));
    let mut second = Follower::new(bed.registry(), Some(point));
    second.until("what came after the point", SOON, |view| view.count("web") == 2).await?;
    hold(second.view(|view| view.seen.completeness.is_none()), || "it listed everything anew".into())?;
    block_in_place(|| bed.scale("web", 1));
    follower.until("one instance again", SOON, |view| view.count("web") == 1).await
}

/// A server that is gone takes nothing with it; when it is back, all is as it is there.
async fn outage(bed: &mut dyn Bed, follower: &mut Follower) -> Checked {
    let before = follower.view(|view| view.seen.errors.len());
    block_in_place(|| bed.kill());
    follower.until("the outage is noticed", QUIET, |view| view.seen.errors.len() > before).await?;
    let kept = follower.view(|view| (view.count("web"), view.count("api")));
    hold(kept == (1, 1), || format!("endpoints went with the server: {kept:?}"))?;
    block_in_place(|| bed.restart());
    let mut fresh = Follower::new(bed.registry(), None);
    fresh.until("all that was there", BACK, |view| view.count("web") == 1 && view.count("api") == 1).await?;
    block_in_place(|| bed.scale("web", 2));
    follower.until("a change after the return", BACK, |view| view.count("web") == 2).await?;
    hold(follower.view(|view| view.count("api")) == 1, || "another service went".into())
}
