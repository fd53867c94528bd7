//! The spanned reader: every fault at once, in its place, and no panic on any text.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
use proptest::prelude::*;
use weft_core::config::{Fault, Severity, SourceFile, Style, read, read_mesh, render};

fn faults(text: &str) -> Vec<Fault> {
    read_mesh(&SourceFile::new("mesh.toml", text)).faults
}

fn lines(text: &str) -> Vec<(u32, u32, String)> {
    faults(text).into_iter().map(|fault| (fault.place.line, fault.place.column, fault.message)).collect()
}

const GOOD: &str = r#"
[[service]]
name = "reviews.default"
hosts = ["reviews"]
ports = [{ name = "http", number = 80, protocol = "http" }]
  [[service.endpoint]]
  instance = "reviews-1"
  port = "http"
  address = "127.0.0.1:8081"
  mesh = "127.0.0.1:15008"
  identity = "spiffe://demo.mesh/ns/default/sa/reviews"
  labels = { version = "v1" }
  weight = 1
  locality = "eu/a"
  health = "healthy"
  tls = "required"
[[route]]
name = "reviews"
service = "reviews.default"
  [[route.rule]]
  name = "split"
  match = [{ path = { prefix = "/" }, method = "GET", headers = [{ name = "x-canary", exact = "yes" }] }]
  backends = [{ subset = { version = "v1" }, weight = 90 }, { subset = { version = "v2" }, weight = 10 }]
  request_timeout = "15s"
  connect_timeout = "1s"
  retries = { attempts = 2, on_gateway_error = false, all_methods = false }
[[policy]]
name = "only-web"
target = { service = "reviews.default" }
action = "allow"
  [[policy.rule]]
  from = [{ identity = "spiffe://demo.mesh/ns/default/sa/web" }]
  to = [{ methods = ["GET"], paths = ["/api/*"], ports = [8080] }]
"#;

#[test]
fn a_good_file_yields_its_resources_and_warns_of_an_unknown_subset() {
    let outcome = read_mesh(&SourceFile::new("mesh.toml", GOOD));
    assert_eq!(outcome.value.unwrap().resources.len(), 4);
    assert_eq!(outcome.faults.len(), 1);
    assert!(outcome.faults[0].message.contains("version = \"v2\""), "{}", outcome.faults[0]);
}

#[test]
fn all_faults_of_a_file_are_told_at_once() {
    let text = "[[service]]\nnmae = \"a\"\nports = [{ name = \"http\", number = 0 }]\n[[polcy]]\n[[route]]\nname = 3\n";
    let found = lines(text);
    let places: Vec<(u32, u32)> = found.iter().map(|(line, column, _)| (*line, *column)).collect();
    assert_eq!(places, [(1, 1), (2, 1), (3, 36), (4, 3), (5, 1), (5, 1), (6, 8)], "{found:#?}");
}

#[test]
fn duplicates_name_both_places() {
    let found = faults("[[service]]\nname = \"a\"\nname = \"b\"\n");
    assert_eq!((found[0].place.line, found[0].related[0].place.line), (3, 2));
    let found = read(&SourceFile::new("f", "[a]\n\n  [a] # again\n"), |root| {
        root.section("a").is_some().then_some(())
    });
    assert_eq!((found.faults[0].place.line, found.faults[0].related[0].place.line), (3, 1));
    let policy = "[[policy]]\nname = \"p\"\ntarget = \"mesh\"\naction = \"deny\"\n";
    let found = faults(&format!("{policy}{policy}"));
    let error = found.iter().find(|fault| fault.is_error()).unwrap();
    assert_eq!((error.place.line, error.related[0].place.line), (6, 2));
}

#[test]
fn a_syntax_error_makes_up_no_others() {
    let found = lines("[[service]]\nname = \nports = [{ name = \"http\", number = 80 }]\nprots = 1\n");
    assert_eq!(found, [(2, 8, "the value is missing".into()), (4, 1, "unknown key `prots`".into())]);
}

#[test]
fn faults_are_shown_as_rustc_does() {
    let fault = faults("[[service]]\nname = \"a\"\n\tprots = 3\n").remove(1);
    let expected = "error: unknown key `prots`\n --> mesh.toml:3:2\n  |\n3 |  prots = 3\n  |  ^^^^^\n  = help: did you mean `ports`?\n";
    assert_eq!(render(&fault, Style::Plain), expected);
    assert!(render(&fault, Style::Coloured).contains("\x1b[1;31merror\x1b[0m"));
}

/// Text that is nearly a file: pieces of good files and of grammar in any order.
fn nearly_toml() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        prop::sample::select(GOOD.split_inclusive(['\n', ' ', '=']).map(str::to_owned).collect::<Vec<_>>()),
        prop::sample::select(
            [
                "[", "]", "[[", "]]", "{", "}", "\"", "'''", "\"\"\"", ".", ",", "\n", "\r", "#", "\\u0000",
                "é", "\0"
            ]
            .map(str::to_owned)
            .to_vec()
        ),
        "[a-z\\[\\]{}=.\"' \n0-9_-]{0,12}",
        any::<String>(),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_text_makes_the_reader_panic(text in nearly_toml()) {
        for fault in faults(&text) {
            let shown = render(&fault, Style::Plain);
            prop_assert!(fault.place.line >= 1 && fault.place.column >= 1, "{}", shown);
        }
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(source) = SourceFile::from_bytes("f", bytes) {
            let _ = read_mesh(&source);
        }
    }

    /// One byte of a good file is changed: it is still good, or an error says why not; and every fault has a place in it.
    #[test]
    fn a_changed_byte_is_survived(at in 0..GOOD.len(), byte in 0_u8..128) {
        let mut bytes = GOOD.as_bytes().to_vec();
        bytes[at] = byte;
        if let Ok(source) = SourceFile::from_bytes("f", bytes) {
            let outcome = read_mesh(&source);
            let is_error = |fault: &Fault| fault.severity == Severity::Error;
            prop_assert_eq!(outcome.value.is_none(), outcome.faults.iter().any(is_error));
            let lines: Vec<_> = source.text().split('\n').collect();
            for Fault { place, .. } in &outcome.faults {
                let line = lines.get(place.line.wrapping_sub(1) as usize).copied();
                let within = line.is_some_and(|line| (1..=line.chars().count() + 1).contains(&(place.column as usize)));
                prop_assert!(within, "{}", place);
            }
        }
    }
}

#[test]
fn deep_nesting_is_refused_not_crashed() {
    for text in
        ["[".repeat(100_000), format!("a = {}", "[".repeat(100_000)), format!("a = {}", "{a=".repeat(50_000))]
    {
        assert!(faults(&text).iter().any(Fault::is_error));
    }
    let dotted = format!("{} = 1", vec!["a"; 100_000].join("."));
    assert!(faults(&dotted).iter().any(Fault::is_error));
}
