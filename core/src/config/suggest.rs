//! The nearest valid word to one that is not valid.

/// The word of `words` nearest to `word`, if any is near enough to be meant: at most a third of its letters differ
/// (one letter for words up to five), where exchanging two neighbours counts as one difference.
#[must_use]
pub fn nearest<'w>(word: &str, words: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    let written = normal(word);
    let allowed = (written.len() / 3).clamp(1, 3);
    words
        .into_iter()
        .map(|candidate| (distance(&written, &normal(candidate)), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Case and the choice of `-` or `_` are no differences. Words longer than 64 characters are not compared further.
fn normal(word: &str) -> Vec<char> {
    word.chars().take(64).map(|c| if c == '-' { '_' } else { c.to_ascii_lowercase() }).collect()
}

/// Edit distance with exchange of neighbours (optimal string alignment).
fn distance(left: &[char], right: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut previous: Vec<usize> = (0..=right.len()).collect();
    for (i, &l) in left.iter().enumerate() {
        let mut current = vec![i + 1];
        for (j, &r) in right.iter().enumerate() {
            let replaced = previous[j] + usize::from(l != r);
            let mut least = replaced.min(previous[j + 1] + 1).min(current[j] + 1);
            if i > 0 && j > 0 && l == right[j - 1] && left[i - 1] == r {
                least = least.min(before[j - 1] + 1);
            }
            current.push(least);
        }
        before = std::mem::replace(&mut previous, current);
    }
    previous[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_found_and_far_ones_are_not() {
        let words = ["listen", "retries", "request_timeout", "name"];
        assert_eq!(nearest("retrys", words), Some("retries"));
        assert_eq!(nearest("nmae", words), Some("name"));
        assert_eq!(nearest("request-timeout", words), Some("request_timeout"));
        assert_eq!(nearest("Listen", words), Some("listen"));
        assert_eq!(nearest("colour", words), None);
        assert_eq!(nearest("", words), None);
    }
}
