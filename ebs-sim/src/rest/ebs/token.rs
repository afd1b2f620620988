//! Tokens of the EBS direct APIs: for a block, and for the next page.
//!
//! In: what a token is for, what it says, and until when. Out: text that only this server makes. A token must never
//! be good for anything else than it was made for, nor after its time.

use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

/// What makes tokens this server's: they end with it.
fn secret() -> &'static str {
    static SECRET: OnceLock<String> = OnceLock::new();
    SECRET.get_or_init(|| uuid::Uuid::new_v4().to_string())
}

fn proof(subject: &str, said: &str, end: i64) -> String {
    hex::encode(&Sha256::digest(format!("{} {subject} {said} {end}", secret()))[..12])
}

/// Makes a token. What it is for is not in it: whoever uses it says that again.
pub fn seal(subject: &str, said: &str, end: Timestamp) -> String {
    let end = end.as_second();
    STANDARD.encode(format!("{} {end} {said}", proof(subject, said, end)))
}

/// What a token says, when it is for this and its time is not over.
pub fn open(token: &str, subject: &str, now: Timestamp) -> Option<String> {
    let text = String::from_utf8(STANDARD.decode(token).ok()?).ok()?;
    let (given, rest) = text.split_once(' ')?;
    let (end, said) = rest.split_once(' ')?;
    let end: i64 = end.parse().ok()?;
    (given == proof(subject, said, end) && now.as_second() < end).then(|| said.to_owned())
}

/// Whether a token that says nothing is for this.
pub fn is_good(token: &str, subject: &str, now: Timestamp) -> bool {
    open(token, subject, now).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_for_one_thing_and_ends() {
        let at = |second| Timestamp::from_second(second).expect("in range");
        let token = seal("block snap-1 7", "", at(100));
        assert!(is_good(&token, "block snap-1 7", at(99)));
        assert!(!is_good(&token, "block snap-1 7", at(100)));
        assert!(!is_good(&token, "block snap-1 8", at(99)) && !is_good("nonsense", "block snap-1 7", at(99)));
        let longer = STANDARD.encode(
            String::from_utf8(STANDARD.decode(&token).expect("base64"))
                .expect("text")
                .replace(" 100 ", " 900 "),
        );
        assert!(!is_good(&longer, "block snap-1 7", at(99)));
        assert_eq!(open(&seal("page", "42", at(100)), "page", at(0)).as_deref(), Some("42"));
        assert!(token.len() <= 256);
    }
}
