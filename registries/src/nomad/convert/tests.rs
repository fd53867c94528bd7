//! What becomes of what, and that whatever is written there harms nobody else.

use proptest::prelude::*;
use serde_json::{Value, json};
use weft_core::{
    config::{SourceFile, read},
    resource::TlsMode,
};

use super::{super::objects::Allocation, *};

fn rules(text: &str) -> Rules {
    let source = SourceFile::new("weft.toml", text.to_owned());
    read(&source, |root| Rules::read(root, &["job", "node"])).value.unwrap()
}

fn instance(more: &Value) -> Value {
    let mut instance = json!({
        "ID": "_nomad-task-8fa01a58-64d0-942d-a3fd-2793b923be52-group-web-web-http",
        "ServiceName": "web", "Namespace": "default", "Address": "10.0.0.1", "Port": 8080, "JobID": "shop",
        "Datacenter": "dc1", "AllocID": "8fa01a58-64d0-942d-a3fd-2793b923be52", "NodeID": "node", "Tags": [],
    });
    for (key, value) in more.as_object().unwrap() {
        instance[key] = value.clone();
    }
    instance
}

fn as_read(instances: Vec<Value>) -> Instances {
    Instances::read(instances, &mut Copies::default())
}

fn words(instances: Vec<Value>, rules: &Rules, node: Option<Node>) -> Words {
    words_without(instances, rules, node, &BTreeSet::new())
}

/// The same, where some allocations are gone.
fn words_without(instances: Vec<Value>, rules: &Rules, node: Option<Node>, lost: &BTreeSet<Text>) -> Words {
    let joined = Joined {
        allocations: &BTreeMap::new(),
        lost,
        nodes: &node.map(|node| ("node".into(), node)).into_iter().collect(),
        region: "global",
        rules,
        trust_domain: None,
    };
    convert("default", "web", &as_read(instances), &joined)
}

fn endpoints(words: &Words) -> Vec<Endpoint> {
    let of = |resource: &Resource| match resource {
        Resource::Endpoint(endpoint) => Some(Endpoint::clone(endpoint)),
        _ => None,
    };
    words.resources.iter().filter_map(of).collect()
}

fn node(meta: &[(&str, &str)]) -> Option<Node> {
    let meta = meta.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Some(Node { name: "n1".into(), node_class: "big".into(), meta })
}

#[test]
fn a_tag_comes_before_the_meta_of_the_node() {
    let rules = rules("identity = \"spiffe://demo.mesh/ns/{namespace}/sa/{job}\"");
    let of_node = node(&[(keys::MESH_PORT, "15008"), (keys::LOCALITY, "eu/a"), (keys::IDENTITY, "nobody")]);
    let one = |tags: Value| {
        endpoints(&words(vec![instance(&json!({ "Tags": tags }))], &rules, of_node.clone())).remove(0)
    };
    let by_node = one(json!([]));
    assert_eq!(by_node.mesh_address.unwrap().to_string(), "10.0.0.1:15008");
    assert_eq!(by_node.locality.to_string(), "eu/a");
    assert_eq!(
        by_node.identity.unwrap().as_str(),
        "spiffe://demo.mesh/ns/default/sa/shop",
        "a node names nobody"
    );
    let by_tag = one(json!(["weft-mesh-port=1", "weft-locality=us"]));
    assert_eq!(by_tag.mesh_address.unwrap().to_string(), "10.0.0.1:1");
    assert_eq!(by_tag.locality.to_string(), "us");
}

#[test]
fn what_a_node_may_say_is_not_taken_for_plaintext_while_the_node_cannot_be_read() {
    let text = "identity = \"spiffe://demo.mesh/ns/{namespace}/sa/{job}\"\ntls = \"preferred\"\n";
    let told = |rules: &Rules, node: Option<Node>| {
        let words = words(vec![instance(&json!({}))], rules, node);
        (endpoints(&words).remove(0), words.faults.len())
    };
    let (unread, faults) = told(&rules(text), None);
    assert_eq!((unread.tls, unread.mesh_address, faults), (TlsMode::Required, None, 1));
    assert!(unread.identity.is_some());
    let (silent, faults) = told(&rules(text), node(&[]));
    assert_eq!((silent.tls, faults), (TlsMode::Off, 0), "its node says nothing");
    for decided in ["tls = \"preferred\"\n", "tls = \"off\"\n"] {
        assert_eq!(told(&rules(decided), None).0.tls, TlsMode::Off, "{decided}");
    }
    let (known, faults) = told(&rules(&format!("{text}mesh_port = 15008\n")), None);
    assert_eq!((known.mesh_address.unwrap().socket().port(), faults), (15008, 0));
}

#[test]
fn an_instance_of_an_allocation_that_is_gone_is_not_healthy() {
    let one = |lost: &BTreeSet<Text>| {
        let words = words_without(vec![instance(&json!({}))], &rules(""), None, lost);
        endpoints(&words).remove(0).health
    };
    assert_eq!(one(&BTreeSet::new()), Health::Healthy, "nobody can tell");
    assert_eq!(one(&["8fa01a58-64d0-942d-a3fd-2793b923be52".into()].into()), Health::Unhealthy);
}

#[test]
fn one_that_is_wrong_is_left_out_and_told() {
    for (wrong, told) in [
        (json!({ "Port": 0 }), "port"),
        (json!({ "Port": 70_000 }), "port"),
        (json!({ "Port": -1 }), "port"),
        (json!({ "Port": "x" }), "invalid type"),
        (json!({ "Address": "" }), "whose `port` is a number"),
        (json!({ "Address": "web.example" }), "a registry of kind = \"dns\""),
        (json!({ "Address": "10.0.0.1/8" }), "no IP address"),
        (json!({ "Address": "fe80::1" }), "of the link"),
        (json!({ "Address": "127.0.0.1" }), "allow_loopback"),
        (json!({ "ID": "" }), "no ID"),
        (json!({ "Tags": "x" }), "invalid type"),
    ] {
        let words =
            words(vec![instance(&wrong), instance(&json!({ "ID": "good" }))], &Rules::default(), None);
        let [good] = &endpoints(&words)[..] else { panic!("{wrong}: {words:?}") };
        assert_eq!(good.instance.as_str(), "good");
        let [fault] = &words.faults[..] else { panic!("{wrong}: {words:?}") };
        assert!(fault.message.contains(told), "{wrong}: {fault:?}");
    }
    let several =
        json!({ "Address": "", "Tags": ["weft-mesh-port=70000", "weft-weight=x", "weft-mesh-prot=1"] });
    let told = words(vec![instance(&several)], &Rules::default(), None).faults;
    let told: Vec<&str> = told.iter().map(|fault| &*fault.message).collect();
    for part in ["no address", "\"70000\", which is no port", "weft-weight is", "weft-mesh-port may be meant"]
    {
        assert!(told.iter().any(|it| it.contains(part)), "all at once, {part} too: {told:?}");
    }
    let garbled = Instances::garbled("web", "nonsense");
    let joined = Joined {
        allocations: &BTreeMap::new(),
        lost: &BTreeSet::new(),
        nodes: &BTreeMap::new(),
        region: "",
        rules: &Rules::default(),
        trust_domain: None,
    };
    let words = convert("default", "web", &garbled, &joined);
    assert!(words.resources.is_empty() && words.faults[0].keeps_last_good);
}

#[test]
fn what_is_new_of_an_allocation_is_a_new_version() {
    let running = |state: &str, canary| {
        let status = super::super::objects::DeploymentStatus { healthy: None, canary };
        let allocation = Allocation {
            client_status: state.into(),
            desired_status: "run".into(),
            deployment_status: Some(status),
            ..Allocation::default()
        };
        let known = Known::of(Copies::default().allocation(&allocation));
        let joined = Joined {
            allocations: &BTreeMap::from([("8fa01a58-64d0-942d-a3fd-2793b923be52".into(), known)]),
            lost: &BTreeSet::new(),
            nodes: &BTreeMap::new(),
            region: "global",
            rules: &Rules::default(),
            trust_domain: None,
        };
        convert("default", "web", &as_read(vec![instance(&json!({}))]), &joined)
    };
    let (well, ill, canary) = (running("running", false), running("failed", false), running("running", true));
    assert_eq!(endpoints(&well)[0].health, Health::Healthy);
    assert_eq!(endpoints(&ill)[0].health, Health::Unhealthy);
    assert_eq!(endpoints(&canary)[0].labels.get("canary"), Some("true"));
    assert!(well.version != ill.version && well.version != canary.version);
    assert_eq!(well.version, running("running", false).version);
}

#[test]
fn all_instances_are_of_one_protocol() {
    let of = |protocol: &str, id: &str| {
        instance(&json!({ "ID": id, "Tags": [format!("weft-protocol={protocol}")] }))
    };
    let words = words(vec![of("tcp", "a"), of("tcp", "b"), of("http", "c")], &Rules::default(), None);
    let Resource::Service(service) = &words.resources[0] else { panic!("{words:?}") };
    assert_eq!((service.ports[0].protocol, service.ports[0].name.as_str()), (AppProtocol::Tcp, "tcp"));
    assert!(endpoints(&words).iter().all(|endpoint| endpoint.port_name.as_str() == "tcp"));
    assert_eq!(words.faults.len(), 1);
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "weft-(mesh-port|identity|weight|locality|protocol)=[ -~\\n]{0,12}".prop_map(Value::from),
        prop::collection::vec(any::<String>(), 0..4).prop_map(Value::from),
    ];
    leaf.boxed()
}

proptest! {
    #[test]
    fn whatever_is_written_there_is_taken_or_told(
        name in any::<String>(),
        changes in prop::collection::btree_map(
            prop::sample::select(vec!["ID", "Address", "Port", "Tags", "JobID", "Datacenter", "AllocID", "NodeID", "ServiceName"]),
            any_json(),
            0..5,
        ),
        meta in prop::collection::btree_map("weft-(mesh-port|locality)", any::<String>(), 0..2),
    ) {
        let changes: serde_json::Map<String, Value> =
            changes.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let instances = vec![instance(&Value::Object(changes)), instance(&json!({ "ID": "good" }))];
        let node = Node { name: name.clone(), node_class: name.clone(), meta };
        let rules = rules("identity = \"spiffe://demo.mesh/ns/{namespace}/sa/{node}\"\ntls = \"preferred\"");
        let joined = Joined {
            allocations: &BTreeMap::new(),
            lost: &BTreeSet::new(),
            nodes: &BTreeMap::from([("node".into(), node)]),
            region: &name,
            rules: &rules,
            trust_domain: None,
        };
        for service in ["web", name.as_str()] {
            let words = convert("default", service, &as_read(instances.clone()), &joined);
            for resource in &words.resources {
                prop_assert_eq!(resource.check(), Ok(()));
            }
            let found = endpoints(&words);
            if service == "web" {
                prop_assert!(found.iter().any(|endpoint| endpoint.instance.as_str() == "good"));
                prop_assert!(found.len() == 2 || !words.faults.is_empty());
            }
            for fault in &words.faults {
                prop_assert!(!fault.place.contains('\n') && fault.place.len() < 400);
                prop_assert!(fault.message.len() < 2000);
            }
        }
    }
}

#[test]
fn tags_and_meta_for_the_mesh_that_are_misspelt_are_told_and_no_plaintext() {
    let rules = rules("tls = \"preferred\"\n");
    for (tags, of_node, fault) in [
        (json!(["weft-mesh-prot=15008"]), node(&[]), "weft-mesh-port may be meant"),
        (json!(["weft-mesh-port"]), node(&[]), "no = and no value"),
        (json!([]), node(&[("weft-mesh-prot", "15008")]), "of its node"),
        (json!(["weft-protocol=smtp"]), node(&[]), "smtp"),
    ] {
        let words = words(vec![instance(&json!({ "Tags": tags }))], &rules, of_node);
        let endpoint = endpoints(&words).remove(0);
        assert_eq!((endpoint.tls, endpoint.labels.iter().count()), (TlsMode::Required, 0), "{fault}");
        assert!(words.faults.iter().any(|it| it.message.contains(fault)), "{fault}: {:?}", words.faults);
    }
}
