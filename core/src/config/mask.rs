//! A line of a configuration file as it may be shown: faults are printed, logged and told by the agent, and the line that
//! a fault is in may hold what its author should not have written there.

/// Keys whose values are secrets, wherever they are written; a key that names a file of one ends otherwise.
const SECRET: [&str; 5] = ["token", "password", "secret", "passphrase", "authorization"];

/// The line with secrets starred out, character by character, so that columns stay what they are: values of keys that
/// are called after a secret, and the user and the query of a URL.
pub(super) fn masked(line: &str) -> String {
    let mut characters: Vec<char> = line.chars().collect();
    let mut at = 0;
    let mut key_begins = 0;
    while at < characters.len() {
        match characters[at] {
            quote @ ('"' | '\'') => {
                let end = end_of_string(&characters, at, quote);
                let key = key_before(&characters[key_begins..at]);
                let value = &mut characters[at + 1..end];
                match SECRET.iter().any(|word| key.ends_with(word)) {
                    true => value.fill('*'),
                    false => mask_url(value),
                }
                at = end + 1;
            }
            ',' | '{' | '[' => {
                at += 1;
                key_begins = at;
            }
            '#' => {
                mask_url(&mut characters[at..]);
                break;
            }
            _ => at += 1,
        }
    }
    characters.into_iter().collect()
}

/// Where the string that begins at `begin` ends: at its closing quote, or with the line.
fn end_of_string(characters: &[char], begin: usize, quote: char) -> usize {
    let mut at = begin + 1;
    while at < characters.len() && characters[at] != quote {
        at += if quote == '"' && characters[at] == '\\' { 2 } else { 1 };
    }
    at.min(characters.len())
}

/// The key that a value follows: `token` in `token =`; empty where there is none.
fn key_before(characters: &[char]) -> String {
    let text: String = characters.iter().collect();
    let key = text.trim_end().strip_suffix('=').unwrap_or_default();
    key.trim().trim_matches(['"', '\'']).to_lowercase()
}

fn mask_url(value: &mut [char]) {
    let Some(scheme) = value.windows(3).position(|it| it == [':', '/', '/']) else { return };
    let rest = &mut value[scheme + 3..];
    let end = rest.iter().position(|it| it.is_whitespace()).unwrap_or(rest.len());
    let rest = &mut rest[..end];
    let query = rest.iter().position(|it| *it == '?').map_or(end, |at| at + 1);
    rest[query..].fill('*');
    // A password may hold anything, a slash too: whatever stands before the last `@` may be one.
    if let Some(host) = rest[..query].iter().rposition(|it| *it == '@') {
        rest[..host].fill('*');
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::masked;

    #[test]
    fn secrets_are_starred_out_and_all_else_is_shown() {
        for (line, shown) in [
            (r#"token = "6ca2-11""#, r#"token = "*******""#),
            (r#"  acl_token='x' # mine"#, r#"  acl_token='*' # mine"#),
            (
                r#"auth = { user = "bob", password = "a\"b,c" }"#,
                r#"auth = { user = "bob", password = "******" }"#,
            ),
            (r#"password = "never closed"#, r#"password = "************"#),
            (r#"token_file = "/run/token""#, r#"token_file = "/run/token""#),
            (r#"address = "http://bob:s3/c@host/eureka""#, r#"address = "http://********@host/eureka""#),
            (r#"a = ["x", "https://h/p?token=1"]"#, r#"a = ["x", "https://h/p?*******"]"#),
            (r#"set = { Authorization = "Bearer 1" }"#, r#"set = { Authorization = "********" }"#),
            ("# see http://bob:x@host", "# see http://*****@host"),
        ] {
            assert_eq!(masked(line), shown, "{line}");
        }
    }

    proptest! {
        #[test]
        fn columns_stay(line in any::<String>()) {
            prop_assert_eq!(masked(&line).chars().count(), line.chars().count());
        }
    }
}
