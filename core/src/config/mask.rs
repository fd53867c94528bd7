//! A line of a configuration file as it may be shown: faults are printed, logged and told by the agent, and the line that
//! a fault is in may hold what its author should not have written there.

/// Keys whose values are secrets, wherever they are written; a key that names a file of one ends otherwise.
const SECRET: [&str; 5] = ["token", "password", "secret", "passphrase", "authorization"];

/// The line with secrets starred out, character by character, so that columns stay what they are: whatever follows a key
/// that is called after a secret, however it is written, and the user and the query of a URL.
pub(super) fn masked(line: &str) -> String {
    let mut characters: Vec<char> = line.chars().collect();
    let mut at = 0;
    let mut key_begins = 0;
    while at < characters.len() {
        match characters[at] {
            quote @ ('"' | '\'') => {
                let end = end_of_string(&characters, at, quote);
                mask_url(&mut characters[at + 1..end]);
                at = end + 1;
            }
            '=' | ':' if is_secret(&characters[key_begins..at]) => {
                at = mask_value(&mut characters, at + 1);
            }
            ',' | '{' => {
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

/// Stars out the value that begins at `at`, or after spaces. Returns where it ends: behind a whole string, else at what may
/// follow a value in an inline table; what is no simple value ends with the line.
fn mask_value(characters: &mut [char], at: usize) -> usize {
    let spaces = characters[at..].iter().take_while(|it| it.is_whitespace()).count();
    let begin = at + spaces;
    let rest = &characters[begin..];
    let end = match rest.first() {
        Some(quote @ ('"' | '\'')) if rest.get(1) != Some(quote) || rest.get(2) != Some(quote) => {
            let end = end_of_string(characters, begin, *quote);
            characters[begin + 1..end].fill('*');
            return end + 1;
        }
        Some('[' | '{' | '"' | '\'') => characters.len(),
        _ => begin + rest.iter().position(|it| matches!(it, ',' | '}')).unwrap_or(rest.len()),
    };
    characters[begin..end].fill('*');
    end
}

/// Where the string that begins at `begin` ends: at its closing quote, or with the line.
fn end_of_string(characters: &[char], begin: usize, quote: char) -> usize {
    let mut at = begin + 1;
    while at < characters.len() && characters[at] != quote {
        at += if quote == '"' && characters[at] == '\\' { 2 } else { 1 };
    }
    at.min(characters.len())
}

/// Whether the key that ends here is called after a secret.
fn is_secret(characters: &[char]) -> bool {
    let text: String = characters.iter().collect();
    let key = text.trim().trim_matches(['"', '\'']).to_lowercase();
    SECRET.iter().any(|word| key.ends_with(word))
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
            ("password = 12345678", "password = ********"),
            ("password: x1", "password: **"),
            (r#"token = ["6ca2"]"#, "token = ********"),
            (r#"token = """6ca2""#, "token = ********"),
            (r#"a = { token = 6ca2, b = "c" }"#, r#"a = { token = ****, b = "c" }"#),
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
