//! Pages of a long answer.
//!
//! In: all items, MaxResults and NextToken. Out: one page and the token of the next. A token must never be
//! accepted by another query than the one it came from.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

use super::error::Ec2Error;
use super::params::Params;

/// In a token: that an empty page went before.
const EMPTY: &str = ".";

/// What a request says about pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paging {
    max_results: Option<usize>,
    /// The key of the first item wanted.
    from: Option<String>,
    /// Stands for the rest of the request.
    query: String,
}

impl Paging {
    /// Takes MaxResults and NextToken. What else is in `params` now is what tokens are bound to.
    pub fn parse(params: &mut Params, action: &str) -> Result<Self, Ec2Error> {
        let max_results: Option<i64> = params.number("MaxResults")?;
        let max_results = match max_results {
            None => None,
            Some(n) if n < 5 => {
                return Err(Ec2Error::invalid_value(format!(
                    "Value ( {n} ) for parameter maxResults is invalid. Expecting a value greater than 5."
                )));
            }
            Some(n) => Some(usize::try_from(n.min(1000)).unwrap_or(1000)),
        };
        let token = params.text("NextToken");
        let digest = Sha256::digest(format!("{action}{:?}", params.all()));
        let query = hex::encode(&digest[..8]);
        let from = token.map(|token| open(&token, &query)).transpose()?;
        Ok(Self { max_results, from, query })
    }

    /// Whether the request asks for pages of a size.
    pub fn is_limited(&self) -> bool {
        self.max_results.is_some()
    }

    /// The number of the first item wanted, of items that have numbers which stay theirs.
    pub fn first_number(&self) -> Result<u64, Ec2Error> {
        let from = self.from.as_ref().map(|from| from.strip_prefix(EMPTY).unwrap_or(from));
        from.map_or(Ok(0), |from| from.parse().map_err(|_| invalid_token()))
    }

    /// Where pages are asked for: the token of an empty page that goes before this one, unless it has been there.
    pub fn empty_before(&self) -> Option<String> {
        let from = self.from.as_deref().unwrap_or("0");
        (self.is_limited() && !from.starts_with(EMPTY)).then(|| self.token(format!("{EMPTY}{from}")))
    }

    /// How many items there are on a page at most.
    pub fn size(&self, limit: usize) -> usize {
        self.max_results.unwrap_or(limit).min(limit)
    }

    /// The token of the page that begins with this item.
    pub fn token(&self, key: impl std::fmt::Display) -> String {
        URL_SAFE_NO_PAD.encode(format!("{} {key}", self.query))
    }

    /// The page of `items`, which are in a stable order, and the token of the next.
    pub fn cut<T>(
        &self,
        mut items: Vec<T>,
        limit: usize,
        key: impl Fn(&T) -> String,
    ) -> (Vec<T>, Option<String>) {
        if let Some(from) = &self.from {
            // An item that is gone leaves its page empty rather than starting over.
            let at = items.iter().position(|item| key(item) == *from);
            items.drain(..at.unwrap_or(items.len()));
        }
        let size = self.size(limit);
        let token = items.get(size).map(|next| self.token(key(next)));
        items.truncate(size);
        (items, token)
    }
}

fn open(token: &str, query: &str) -> Result<String, Ec2Error> {
    URL_SAFE_NO_PAD
        .decode(token)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .and_then(|text| Some(text.strip_prefix(query)?.strip_prefix(' ')?.to_owned()))
        .ok_or_else(invalid_token)
}

fn invalid_token() -> Ec2Error {
    Ec2Error::new("InvalidPaginationToken", "The specified pagination token is not valid or is expired.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(form: &str) -> Result<Paging, Ec2Error> {
        Paging::parse(&mut Params::parse(&[form.as_bytes()]), "DescribeX")
    }

    #[test]
    fn pages_follow_each_other() {
        let all: Vec<u32> = (0..12).collect();
        let key = |n: &u32| n.to_string();
        let (mut seen, mut token) = (Vec::new(), None);
        loop {
            let next = token.map(|t| format!("&NextToken={t}")).unwrap_or_default();
            let paging = page(&format!("MaxResults=5{next}")).expect("good");
            let (items, following) = paging.cut(all.clone(), 1000, key);
            assert!(items.len() <= 5);
            seen.extend(items);
            match following {
                None => break,
                following => token = following,
            }
        }
        assert_eq!(seen, all);
    }

    #[test]
    fn tokens_belong_to_their_query() {
        let (_, token) =
            page("MaxResults=5").expect("good").cut((0..9).collect(), 1000, |n: &u32| n.to_string());
        let token = token.expect("a second page");
        assert!(page(&format!("MaxResults=7&NextToken={token}")).is_ok());
        assert!(page(&format!("Owner.1=self&NextToken={token}")).is_err());
        assert!(page("NextToken=nonsense").is_err());
        assert!(page("MaxResults=4").is_err());
    }
}
