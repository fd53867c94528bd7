//! Configurations: the good ones mean what they should.
use std::path::Path;

use weft_agent::config::{Overrides, read_agent, read_hub};
use weft_core::config::{SourceFile, Style, render_all};

fn shown(faults: &[weft_core::config::Fault]) -> String {
    render_all(faults, Style::Plain)
}

#[test]
fn the_examples_are_good() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("examples/quickstart");
    for name in ["web.toml", "reviews.toml"] {
        let outcome = read_agent(&SourceFile::read(&root.join(name)).unwrap(), &Overrides::default());
        println!("{}", shown(&outcome.faults));
        assert!(outcome.value.is_some(), "{name}\n{}", shown(&outcome.faults));
    }
    let outcome = read_hub(&SourceFile::read(&root.join("hub.toml")).unwrap(), &Overrides::default());
    assert!(outcome.value.is_some(), "{}", shown(&outcome.faults));
}
