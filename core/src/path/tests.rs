use proptest::prelude::*;

use super::*;

fn kept(path: &str) -> Result<String, PathFault> {
    normalise(path, EncodedSlash::Keep).map(Cow::into_owned)
}

#[test]
fn paths_have_one_form() {
    let cases = [
        ("/", "/"),
        ("/a/b", "/a/b"),
        ("/a/b/", "/a/b/"),
        ("/%61%2D%2e%5F%7e", "/a-._~"),
        ("/a%20b%c3%bc", "/a%20b%C3%BC"),
        ("/a%2520", "/a%2520"),
        ("/%252e%252e/a", "/%252e%252e/a"),
        ("//a///b//", "/a/b/"),
        ("/a\\b\\..\\c", "/a/c"),
        ("\\a", "/a"),
        ("/a/./b/.", "/a/b/"),
        ("/a/../b", "/b"),
        ("/a/b/..", "/a/"),
        ("/..", "/"),
        ("/../../a", "/a"),
        ("/a/%2e%2E/b", "/b"),
        ("/a/.%2e/b", "/b"),
        ("/a//../b", "/b"),
        ("//a/../b/%2e%2e/c", "/c"),
        ("/.well-known/x", "/.well-known/x"),
        ("/...", "/..."),
        ("/..a/.b", "/..a/.b"),
        ("/a;x=1/b", "/a;x=1/b"),
        ("/a|b\"{}", "/a%7Cb%22%7B%7D"),
        ("/\u{fc}", "/%C3%BC"),
        ("/a%2fb%5c", "/a%2Fb%5C"),
        ("*", "*"),
    ];
    for (path, wanted) in cases {
        assert_eq!(kept(path).as_deref(), Ok(wanted), "{path}");
    }
}

#[test]
fn what_has_no_safe_form_is_refused() {
    for path in [
        "",
        "a",
        "**",
        "/%",
        "/%1",
        "/%zz",
        "/%00",
        "/\0",
        "/a/..;/b",
        "/a/%2e.;x",
        "/.;/b",
        "/..%3Bx",
        "/..%3b",
    ] {
        assert_eq!(kept(path), Err(PathFault::Malformed), "{path:?}");
    }
}

#[test]
fn encoded_slashes_are_refused_where_rules_on_paths_apply() {
    for path in ["/a%2fb", "/a%2Fb", "/a%5cb", "/..%2f", "/%5C"] {
        assert_eq!(normalise(path, EncodedSlash::Refuse), Err(PathFault::EncodedSlash), "{path}");
    }
    assert!(normalise("/a%20b", EncodedSlash::Refuse).is_ok());
}

#[test]
fn parameters_are_read_away_with_their_segments() {
    for (path, bare) in [
        ("/admin;a=b", "/admin"),
        ("/admin;/x", "/admin/x"),
        ("/;/admin", "/admin"),
        ("/admin/;x", "/admin/"),
        ("/admin;x/", "/admin/"),
        ("/a;x;y/b%3Bz", "/a/b"),
        ("/;", "/"),
    ] {
        assert_eq!(without_parameters(path).as_deref(), Some(bare), "{path}");
    }
    for path in ["/", "/a/b", "/a%20b/", "*"] {
        assert_eq!(without_parameters(path), None, "{path}");
    }
}

#[test]
fn what_is_normal_is_borrowed() {
    for path in ["/", "/a/b.c/d-e_f~g", "/.well-known/x", "/a%20b%C3%BC", "/api/v1/items;x=1,2/@me"] {
        assert!(matches!(normalise(path, EncodedSlash::Refuse), Ok(Cow::Borrowed(_))), "{path}");
    }
}

/// A slow reading of the result: decode it once more as the most eager application would, and resolve what it finds.
fn climbs(path: &str) -> bool {
    path.split('/').any(|segment| matches!(segment, "." | ".."))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_result_is_normal(path in "[/\\\\.%;a2eEfF5cC0-9\\x00-\\x7f\u{fc}]{0,24}") {
        for slashes in [EncodedSlash::Keep, EncodedSlash::Refuse] {
            if let Ok(once) = normalise(&format!("/{path}"), slashes) {
                let twice = normalise(&once, slashes).unwrap();
                prop_assert_eq!(&twice, &once);
                prop_assert!(matches!(twice, Cow::Borrowed(_)) || once.contains("%2F") || once.contains("%5C"));
                prop_assert!(!once.contains("//") && !once.contains('\\') && !climbs(&once));
                prop_assert!(once.is_ascii());
            }
        }
    }

    #[test]
    fn any_text_is_read_or_refused(path in "\\PC*") {
        let _ = normalise(&path, EncodedSlash::Refuse);
    }
}
