//! What a job may write into the catalog that leads nowhere good: left out, told, and nobody else's loss.

use weft_core::resource::Health;
use weft_testbed::NomadOptions;

use crate::support::{Follower, Job, follower, registry, start};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_job_writes_harms_nobody_else() {
    let Some(nomad) = start(NomadOptions::default()) else { return };
    let mut follower = follower(&nomad, "tls = \"preferred\"\n");
    let tags: Vec<String> = (0..300).map(|number| format!("{:?}", format!("key{number}=value"))).collect();
    let tags =
        format!("tags = [{}, \"\", \"=x\", \"line\\nbreak=x\", \"weft-mesh-port=abc\"]", tags.join(", "));
    Job { name: "tagged", service: &tags, ..Job::default() }.run(&nomad);
    let address = |address: &str| format!("address = {address:?}");
    for (name, text) in [
        ("metadata", "169.254.169.254"),
        ("named", "db.example.com"),
        ("group", "224.0.0.1"),
        ("odd", "a/b c\\n"),
    ] {
        Job { name, service: &address(text), ..Job::default() }.run(&nomad);
    }
    Job { name: "six", service: &address("fd79::101"), ..Job::default() }.run(&nomad);
    Job { name: "BigLetters", ..Job::default() }.run(&nomad);
    Job::default().run(&nomad);
    let view = follower
        .until("all are there", |view| {
            ["web", "tagged", "six", "bigletters"]
                .iter()
                .all(|name| view.healths(&format!("{name}.default")) == [Health::Healthy])
                && view.services().len() == 8
        })
        .await;
    assert!(
        view.addresses("six.default")[0].starts_with("[fd79::101]:"),
        "{:?}",
        view.addresses("six.default")
    );
    let tagged = view.endpoints("tagged.default").remove(0);
    assert_eq!(tagged.labels.len(), 64);
    assert!(tagged.unusable().is_some(), "half a record is not plaintext");
    let faults = view.faults().join("\n");
    for (name, message) in [
        ("metadata", "an address of the link"),
        ("named", "no IP address"),
        ("named", "a registry of kind = \"dns\""),
        ("group", "the address of a group"),
        ("odd", "no IP address"),
        ("tagged", "are no labels"),
        ("tagged", "which is no port"),
    ] {
        assert!(faults.lines().any(|line| line.contains(name) && line.contains(message)), "{name}: {faults}");
        let named = view.endpoints(&format!("{name}.default"));
        assert!(named.is_empty() || name == "tagged", "{named:?}");
    }
    assert!(view.endpoints("web.default")[0].unusable().is_none(), "preferred");

    let mut strict = Follower::of(registry(&nomad.url(), ""));
    let view = strict.until("it is listed", |view| view.lists == 1).await;
    assert!(view.endpoints("web.default")[0].unusable().is_some(), "no plaintext but by the file's word");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loopback_is_an_address_only_where_the_file_says_so() {
    let Some(nomad) = start(NomadOptions::default()) else { return };
    Job::default().run(&nomad);
    nomad.await_service("web", 1).unwrap();
    let registry = crate::support::strict_registry(&nomad.url(), "");
    let mut follower = Follower::of(registry);
    let view = follower.until("it is listed", |view| view.lists == 1).await;
    assert!(view.endpoints("web.default").is_empty());
    assert!(view.faults().join("\n").contains("allow_loopback"), "{:?}", view.faults());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_too_long_costs_its_service_and_no_other() {
    let Some(nomad) = start(NomadOptions::default()) else { return };
    let mut follower = follower(&nomad, "max_answer = \"20KiB\"\n");
    Job::default().run(&nomad);
    let tag = format!("tags = [\"{}\"]", "x".repeat(300));
    Job { name: "many", count: 2, service: &tag, ..Job::default() }.run(&nomad);
    let view = follower
        .until("both are there", |view| {
            view.endpoints("many.default").len() == 2 && view.healths("web.default") == [Health::Healthy]
        })
        .await;
    let before = view.addresses("many.default");
    let tag = format!("tags = [\"{}\"]", "x".repeat(15_000));
    Job { name: "many", count: 2, service: &tag, ..Job::default() }.run(&nomad);
    let too_long = |faults: Vec<String>| faults.iter().any(|fault| fault.contains("max_answer"));
    let view = follower.until("the long one is told", |view| too_long(view.faults())).await;
    assert_eq!(view.addresses("many.default"), before, "what was known stands");
    assert_eq!(view.errors, vec![]);
    Job { name: "late", ..Job::default() }.run(&nomad);
    follower.until("others go on", |view| view.healths("late.default") == [Health::Healthy]).await;
}
