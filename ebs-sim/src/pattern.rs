//! Patterns with `*` and `?`.
//!
//! In: a pattern and a text. Out: whether they match. A part of the text must never be taken for the whole.
//! It is written by hand because EC2 knows `*`, `?` and a backslash only: libraries for file names also give
//! `[` and `/` a meaning.

/// Whether `text` matches the whole of `pattern`.
pub fn wildcard(pattern: &str, text: &str) -> bool {
    // Mostly there is nothing but text, and very many texts to compare it with.
    if !pattern.contains(['*', '?', '\\']) {
        return pattern == text;
    }
    #[derive(PartialEq)]
    enum Part {
        Any,
        One,
        Is(char),
    }
    let mut parts = Vec::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        parts.push(match c {
            '*' => Part::Any,
            '?' => Part::One,
            '\\' => Part::Is(chars.next().unwrap_or('\\')),
            c => Part::Is(c),
        });
    }
    let text: Vec<char> = text.chars().collect();
    // On a mismatch, go back to the last star and let it take one character more.
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match parts.get(p) {
            Some(Part::Any) => {
                star = Some((p, t));
                p += 1;
            }
            Some(Part::One) => (p, t) = (p + 1, t + 1),
            Some(Part::Is(c)) if *c == text[t] => (p, t) = (p + 1, t + 1),
            _ => match star {
                None => return false,
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    (p, t) = (at + 1, taken + 1);
                }
            },
        }
    }
    parts[p..].iter().all(|part| *part == Part::Any)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_match_the_whole() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("a*", "abc", true),
            ("*c", "abcbc", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("abc", "abcd", false),
            (r"a\*", "a*", true),
            (r"a\*", "ab", false),
            ("*a*b*", "xxaxxbxx", true),
            ("snap-*", "vol-1", false),
        ] {
            assert_eq!(wildcard(pattern, text), expected, "{pattern} {text}");
        }
    }
}
