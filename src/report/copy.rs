//! What a copy would be, for people.
//!
//! In: a forecast. Out: text within 80 columns where its words allow. Must never: name a price that nobody has
//! published, or promise what only EC2 knows.

use std::fmt::Write;
use std::time::Duration;

use crate::config::settings::CopySettings;
use crate::ec2::copies::Encryption;
use crate::path_encoding::printable;
use crate::sets::copy::existing::Existing;
use crate::sets::copy::forecast::{Expected, Forecast};
use crate::sets::copy::source::Source;
use crate::sets::copy::{ByDefault, How};

/// Bytes as people write them.
fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut scaled = n;
    let mut rest = 0;
    while scaled >= 1024 && unit + 1 < UNITS.len() {
        (rest, scaled) = (scaled % 1024 * 10 / 1024, scaled / 1024);
        unit += 1;
    }
    if unit == 0 { format!("{n} bytes") } else { format!("{scaled}.{rest} {}", UNITS[unit]) }
}

/// What would be copied to one destination.
#[must_use]
pub(crate) fn forecast(
    source: &Source,
    to: &CopySettings,
    how: &How,
    existing: &Existing,
    forecast: &Forecast,
    same_place: bool,
) -> String {
    let mut text = String::new();
    let (set, region) = (&source.set, &to.region);
    if let Some(whole) = &existing.whole {
        let _ = writeln!(text, "{region}: is there already, as {}", whole.id);
        return text;
    }
    let _ = writeln!(text, "{} would be copied\n  from {} to {region}", set.id, set.region);
    if let Some(started) = &existing.started {
        let there = source.parts.iter().filter(|p| started.members.iter().any(|m| m.number == p.number));
        let _ =
            writeln!(text, "  as {}: {} of its snapshots are asked for already", started.id, there.count());
    }
    for (part, expected) in source.parts.iter().zip(&forecast.parts) {
        let _ = writeln!(text, "  {}  {}  {} GiB", part.id, part.volume, part.size_gib);
        let what = match expected {
            Expected::Incremental(None) => "incremental: same account, Region and key".to_owned(),
            Expected::Incremental(Some(after)) => format!("incremental, after {after}"),
            Expected::Full(why) => format!("full: {why}"),
            Expected::NotKnown(why) => format!("not known: {why}"),
        };
        let _ = writeln!(text, "    {}", printable(&what));
    }
    let size = match forecast.full_bytes {
        Some(n) => format!("{} of data if all of it is copied in full", bytes(n)),
        None => "EC2 does not say how much data there is".to_owned(),
    };
    let _ = writeln!(text, "  size   {size}");
    let key = match &how.encryption {
        Encryption::AsSource => match &how.by_default {
            ByDefault::On(key) => &format!("{key}: the account encrypts everything new there"),
            _ if source.encrypted() => "as the source, under alias/aws/ebs: never to be shared",
            ByDefault::Off => "none, as the source",
            ByDefault::NotKnown => "none, as the source, unless the account encrypts by default",
        },
        Encryption::Unnamed => "alias/aws/ebs, the account's default key there: never to be shared",
        Encryption::Key(key) => key,
    };
    let _ = writeln!(text, "  key    {}", printable(key));
    let transfer = if same_place { "no transfer" } else { "transfer between Regions, by the GiB" };
    let _ = writeln!(text, "  price  {transfer}; then storage of what is new there");
    match to.within {
        Some(within) => {
            let span = humantime::format_duration(within);
            let _ =
                writeln!(text, "         time-based: $0.020 (15 min) to $0.005 (16 h or more) a GiB copied");
            let _ = writeln!(text, "  time   within {span}, as far as the account's quota goes; else later");
            if let Some(least) = forecast.least.filter(|least| *least > within) {
                let least = humantime::format_duration(Duration::from_secs(least.as_secs()));
                let _ =
                    writeln!(text, "         in full it takes {least} at EC2's rate (500 MiB/s a snapshot)");
            }
        }
        None => {
            let _ = writeln!(text, "  time   EC2 promises none (--within does)");
        }
    }
    let _ = writeln!(text, "  copies that other programs made count for EC2, and are not seen here");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_the_unit_that_fits() {
        for (n, text) in [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (1536, "1.5 KiB"),
            (5 << 30, "5.0 GiB"),
            (3 << 42, "12.0 TiB"),
            (1 << 52, "4096.0 TiB"),
        ] {
            assert_eq!(bytes(n), text);
        }
    }
}
