use weft_core::config::{SourceFile, read};

use super::*;

fn read_check(text: &str) -> Result<Option<CheckSettings>, String> {
    let outcome = read(&SourceFile::new("weft.toml", text), |section| {
        CheckSettings::read(section, &CheckSettings::default())
    });
    outcome.value.ok_or_else(|| outcome.faults.iter().map(ToString::to_string).collect())
}

#[test]
fn a_check_is_read_with_its_defaults_and_its_faults() {
    assert_eq!(read_check("kind = \"tcp\""), Ok(Some(CheckSettings::default())));
    assert_eq!(read_check("kind = \"none\""), Ok(None));
    let http = read_check(
        "kind = \"http\"\npath = \"/up?deep=1\"\nhost = \"web\"\ninterval = \"500ms\"\nfailures = 3",
    );
    let http = http.unwrap().unwrap();
    let question = Question::Http { path: "/up?deep=1".into(), host: Some("web".into()) };
    assert_eq!((http.question, http.failures), (question, 3));
    assert_eq!(http.timeout, Duration::from_millis(500), "no longer than the interval");
    for (text, fault) in [
        ("", "kind"),
        ("kind = \"smtp\"", "smtp"),
        ("kind = \"http\"\npath = \"up\"", "path"),
        ("kind = \"http\"\npath = \"/a b\"", "path"),
        ("kind = \"tcp\"\npath = \"/\"", "path"),
        ("kind = \"tcp\"\ninterval = \"10ms\"", "interval"),
        ("kind = \"tcp\"\ninterval = \"1s\"\ntimeout = \"2s\"", "timeout"),
        ("kind = \"tcp\"\nfailures = 0", "0"),
    ] {
        let told = read_check(text).expect_err(text);
        assert!(told.contains(fault), "{text}: {told}");
    }
}

#[test]
fn a_judgement_changes_after_so_many_in_a_row() {
    let settings = CheckSettings { failures: 3, successes: 2, ..CheckSettings::default() };
    let mut tally = Tally::default();
    let mut changes = Vec::new();
    for (index, answered) in
        [true, false, false, true, false, false, false, true, false, true, true].into_iter().enumerate()
    {
        if tally.take(&settings, answered) {
            changes.push((index, tally.healthy()));
        }
    }
    assert_eq!(changes, [(0, Some(true)), (6, Some(false)), (10, Some(true))]);
}
