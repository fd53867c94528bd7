//! The order of who says what, and that nothing but the file ever allows plaintext.

use std::collections::BTreeMap;

use weft_core::{
    config::{SourceFile, read},
    resource::Address,
};

use super::*;

fn rules(text: &str) -> Rules {
    let source = SourceFile::new("weft.toml", text.to_owned());
    let outcome = read(&source, |root| Rules::read(root, &["node"]));
    outcome.value.unwrap_or_else(|| panic!("{:?}", outcome.faults))
}

fn faults(text: &str) -> Vec<String> {
    let source = SourceFile::new("weft.toml", text.to_owned());
    read(&source, |root| Rules::read(root, &["node"]))
        .faults
        .iter()
        .map(|fault| fault.message.clone())
        .collect()
}

fn speaks(rules: &Rules, platform: Option<&str>, record: &[(&str, &str)]) -> Speaks {
    let service: ServiceName = "web.default".parse().unwrap();
    let address: Address = "10.0.0.1:8080".parse().unwrap();
    let record: BTreeMap<&str, &str> = record.iter().copied().collect();
    let platform = platform.map(|text| SpiffeId::parse(text).unwrap());
    let instance = Instance {
        service: &service,
        address: &address,
        platform: platform.as_ref(),
        record: &|key| record.get(key).copied(),
        unread: None,
        strays: &keys::strays(record.keys().copied()),
        words: &[("node", "n1")],
    };
    rules.speaks(instance, Some(&TrustDomain::new("demo.mesh").unwrap()))
}

const WEB: &str = "spiffe://demo.mesh/ns/default/sa/web";
const OTHER: &str = "spiffe://demo.mesh/ns/default/sa/other";

#[test]
fn a_whole_record_speaks_mesh_and_half_a_record_is_never_plaintext() {
    for text in ["", "tls = \"preferred\""] {
        let rules = rules(text);
        let whole = speaks(&rules, None, &[(keys::MESH_PORT, "15008"), (keys::IDENTITY, WEB)]);
        assert_eq!(whole.mesh_address, Some("10.0.0.1:15008".parse().unwrap()));
        assert_eq!(whole.identity.unwrap().as_str(), WEB);
        assert_eq!((whole.said_by.identity, whole.tls), (Sayer::Metadata, TlsMode::Required));
        assert!(whole.faults.is_empty());
        for half in [
            &[(keys::MESH_PORT, "15008")][..],
            &[(keys::IDENTITY, WEB)],
            &[(keys::MESH_PORT, "70000"), (keys::IDENTITY, WEB)],
            &[(keys::MESH_PORT, "0")],
            &[(keys::MESH_PORT, "15008"), (keys::IDENTITY, "web")],
        ] {
            let half = speaks(&rules, None, half);
            assert_eq!((half.tls, half.faults.len().min(1)), (TlsMode::Required, 1), "{half:?}");
            assert!(half.identity.is_none() || half.mesh_address.is_none());
        }
    }
}

#[test]
fn only_the_file_allows_plaintext() {
    let nothing = &[][..];
    assert_eq!(speaks(&rules(""), None, nothing).tls, TlsMode::Required);
    assert_eq!(speaks(&rules("tls = \"preferred\""), None, nothing).tls, TlsMode::Off);
    let off = rules("tls = \"preferred\"\n[[service]]\nname = \"*.default\"\ntls = \"off\"");
    let whole = &[(keys::MESH_PORT, "15008"), (keys::IDENTITY, WEB)];
    let spoken = speaks(&off, None, whole);
    assert_eq!((spoken.tls, spoken.identity, spoken.mesh_address), (TlsMode::Off, None, None));
    let elsewhere = rules("[[service]]\nname = \"web.other\"\ntls = \"off\"");
    assert_eq!(speaks(&elsewhere, None, nothing).tls, TlsMode::Required);
}

#[test]
fn the_platform_comes_before_the_rule_before_the_record_before_the_registrys_rule() {
    let all = rules(
        "identity = \"ns/{namespace}/sa/{node}\"\nmesh_port = 15008\n[[service]]\nname = \"web.*\"\nidentity = \"ns/{namespace}/sa/{service}\"",
    );
    let record = &[(keys::IDENTITY, OTHER)];
    let by = |rules: &Rules, platform, record: &[(&str, &str)]| {
        let spoken = speaks(rules, platform, record);
        (spoken.identity.unwrap().account().to_owned(), spoken.said_by.identity, spoken.faults.len())
    };
    assert_eq!(by(&all, Some(OTHER), &[]), ("other".into(), Sayer::Platform, 0));
    assert_eq!(by(&all, None, &[]), ("web".into(), Sayer::ServiceRule, 0));
    assert_eq!(by(&all, None, record), ("web".into(), Sayer::ServiceRule, 1), "the contradiction is told");
    let registry = rules("identity = \"ns/{namespace}/sa/{node}\"\nmesh_port = 15008");
    assert_eq!(by(&registry, None, record), ("other".into(), Sayer::Metadata, 0));
    assert_eq!(by(&registry, None, &[]), ("n1".into(), Sayer::RegistryRule, 0));
}

#[test]
fn each_of_port_and_tls_is_said_by_the_rule_that_holds() {
    let said = |text: &str, record: &[(&str, &str)]| {
        let said_by = speaks(&rules(text), None, record).said_by;
        (said_by.mesh_address, said_by.tls)
    };
    let whole = &[(keys::MESH_PORT, "15009"), (keys::IDENTITY, WEB)];
    assert_eq!(said("mesh_port = 15008", whole), (Sayer::Metadata, Sayer::Default));
    let named = &whole[1..];
    assert_eq!(
        said("mesh_port = 15008\ntls = \"preferred\"", named),
        (Sayer::RegistryRule, Sayer::RegistryRule)
    );
    let both = "tls = \"preferred\"\nmesh_port = 15008\n[[service]]\nname = \"web.*\"\n";
    assert_eq!(said(&format!("{both}mesh_port = 1"), named), (Sayer::ServiceRule, Sayer::RegistryRule));
    assert_eq!(said(&format!("{both}tls = \"required\""), named), (Sayer::RegistryRule, Sayer::ServiceRule));
    assert_eq!(said("[[service]]\nname = \"*.default\"\ntls = \"off\"", &[]).1, Sayer::ServiceRule);
}

#[test]
fn what_a_platform_puts_into_a_word_cannot_change_the_form() {
    let rules = rules("identity = \"ns/{namespace}/sa/{node}\"\nmesh_port = 15008");
    let service: ServiceName = "web.default".parse().unwrap();
    let address: Address = "10.0.0.1:8080".parse().unwrap();
    for node in ["a/sa/admin", "", "..", "a\nb", "a b"] {
        let words = [("node", node)];
        let instance = Instance {
            service: &service,
            address: &address,
            platform: None,
            record: &|_| None,
            unread: None,
            strays: &[],
            words: &words,
        };
        let spoken = rules.speaks(instance, Some(&TrustDomain::new("demo.mesh").unwrap()));
        assert_eq!((spoken.identity, spoken.faults.len()), (None, 1), "{node:?}");
    }
}

#[test]
fn a_wrong_section_is_told() {
    for text in [
        "tls = \"sometimes\"",
        "mesh_port = 0",
        "identity = \"web\"",
        "identity = \"ns/{namespace}/sa/{job}\"",
        "identity = \"ns/{namespace/sa/x\"",
        "tls = \"off\"\nmesh_port = 15008",
        "[[service]]\ntls = \"off\"",
        "[[service]]\nname = \"we*.default\"",
        "[[service]]\nname = \"*\"\nprotocl = \"http\"",
    ] {
        assert_eq!(faults(text).len(), 1, "{text}: {:?}", faults(text));
    }
}

#[test]
fn the_rest_of_a_record_is_read_or_told() {
    let record = BTreeMap::from([(keys::PROTOCOL, "grpc"), (keys::WEIGHT, "7"), (keys::LOCALITY, "eu/a")]);
    let read = Recorded::read(&|key| record.get(key).copied());
    assert_eq!((read.protocol, read.weight), (Some(AppProtocol::Grpc), Some(7)));
    assert_eq!(read.locality.unwrap().zone(), "a");
    assert!(read.faults.is_empty());
    let wrong = BTreeMap::from([(keys::PROTOCOL, "smtp"), (keys::WEIGHT, "-1"), (keys::LOCALITY, "a/b/c/d")]);
    let read = Recorded::read(&|key| wrong.get(key).copied());
    assert_eq!((read.protocol, read.weight, read.locality, read.faults.len()), (None, None, None, 3));
}

#[test]
fn a_record_that_does_not_count_is_told() {
    let by_rule = rules("[[service]]\nname = \"web\"\nidentity = \"ns/default/sa/web\"\nmesh_port = 15008\n");
    let by_platform = rules("mesh_port = 15008\n");
    for (recorded, word) in [(OTHER, "which stands"), ("no identity", "weft-identity")] {
        for (rules, platform) in [(&by_rule, None), (&by_platform, Some(WEB))] {
            let spoken = speaks(rules, platform, &[(keys::IDENTITY, recorded)]);
            assert_eq!(spoken.identity.unwrap().as_str(), WEB);
            assert!(spoken.faults.iter().any(|it| it.contains(word)), "{recorded}: {:?}", spoken.faults);
        }
    }
    assert!(speaks(&by_platform, Some(WEB), &[(keys::IDENTITY, WEB)]).faults.is_empty());
}

#[test]
fn a_misspelt_key_is_told_and_never_plaintext() {
    let preferred = rules("tls = \"preferred\"");
    for (key, meant) in [
        ("weft-mesh-prot", Some(keys::MESH_PORT)),
        ("weft_mesh_port", Some(keys::MESH_PORT)),
        ("Weft-Mesh-Port", Some(keys::MESH_PORT)),
        ("weft.identity", Some(keys::IDENTITY)),
        ("weft-anything", None),
    ] {
        let spoken = speaks(&preferred, None, &[(key, "15008")]);
        assert_eq!((spoken.tls, spoken.faults.len()), (TlsMode::Required, 1), "{key}");
        assert!(spoken.faults[0].contains(key), "{:?}", spoken.faults);
        assert!(meant.is_none_or(|meant| spoken.faults[0].contains(meant)), "{:?}", spoken.faults);
    }
    for other in ["weft", "wefty", "x-weft-mesh-port", "weft.dev/inject", "wëft-a", "version"] {
        let spoken = speaks(&preferred, None, &[(other, "15008")]);
        assert_eq!((spoken.tls, spoken.faults.len()), (TlsMode::Off, 0), "{other}");
    }
    let mesh = [(keys::MESH_PORT, "15008"), (keys::IDENTITY, WEB), ("weft-wieght", "3")];
    let whole = speaks(&preferred, None, &mesh);
    assert!(whole.mesh_address.is_some() && whole.faults.len() == 1, "the mesh is reached all the same");
    let many: Vec<String> = (0..100).map(|number| format!("weft-{number}")).collect();
    assert_eq!(keys::strays(many.iter().map(String::as_str)).len(), 5);
}

#[test]
fn an_instance_of_which_nobody_knows_what_it_speaks_is_not_called() {
    let record = &[(keys::MESH_PORT, "15008"), (keys::IDENTITY, WEB), (keys::PROTOCOL, "smtp")];
    for text in ["", "tls = \"preferred\"", "tls = \"off\""] {
        let spoken = speaks(&rules(text), None, record);
        let reached = (spoken.mesh_address, spoken.identity, spoken.tls);
        assert_eq!(reached, (None, None, TlsMode::Required), "{text}");
        assert_eq!(spoken.faults.len(), 1);
    }
    let declared = rules("[[service]]\nname = \"web\"\nprotocol = \"tcp\"\n");
    assert!(speaks(&declared, None, record).mesh_address.is_some(), "the file's word comes first");
}
