//! Availability Zones: their names and their ids.
//!
//! In: a Region's name. Out: its zones. A zone must never be taken for one of another Region.

/// The zones that every Region has here.
const LETTERS: [char; 3] = ['a', 'b', 'c'];

/// The zones of a Region.
pub fn names(region: &str) -> impl Iterator<Item = String> {
    LETTERS.into_iter().map(move |letter| format!("{region}{letter}"))
}

/// `use1-az1` for `us-east-1a`. On AWS every account has its zones in another order; here a is always 1.
pub fn id(zone: &str) -> String {
    let region = zone.trim_end_matches(|c: char| c.is_ascii_lowercase());
    let letter = zone.chars().last().unwrap_or('a');
    let number = (letter as u32).saturating_sub('a' as u32) + 1;
    let mut parts = region.split('-');
    let mut short = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        short.push_str(match part {
            "northeast" => "ne",
            "northwest" => "nw",
            "southeast" => "se",
            "southwest" => "sw",
            // A number stays, of a word there is the first letter.
            part if part.starts_with(|c: char| c.is_ascii_digit()) => part,
            part => part.get(..1).unwrap_or_default(),
        });
    }
    format!("{short}-az{number}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_short() {
        for (zone, expected) in [
            ("us-east-1a", "use1-az1"),
            ("us-west-2c", "usw2-az3"),
            ("eu-central-1b", "euc1-az2"),
            ("ap-southeast-2a", "apse2-az1"),
            ("us-gov-west-1a", "usgw1-az1"),
        ] {
            assert_eq!(id(zone), expected);
        }
        assert_eq!(names("eu-west-1").collect::<Vec<_>>(), ["eu-west-1a", "eu-west-1b", "eu-west-1c"]);
    }
}
