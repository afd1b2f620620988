//! Device names for attachments: free ones, of the safe range first.
//!
//! In: what EC2 says of a host. Out: names, or a refusal. Pure. Must never: take an alias of a name that is in use.

use super::plan::{Host, Refusal, no};

/// Names that may be tried beside those that are wanted.
const SPARE: usize = 4;

/// Device names for so many volumes more, and some to spare.
pub(super) fn names(host: &Host, wanted: usize) -> Result<(Vec<String>, Vec<String>), Refusal> {
    let taken = &host.view.device_names;
    if let Some(limit) = host.limit {
        let others = if limit.shared { host.view.interfaces + limit.instance_store } else { 0 };
        let there = taken.len() + others;
        if there + wanted > limit.most {
            return no(
                format!(
                    "{} can have {} attachments ({}), has {there}, and {wanted} more are needed",
                    host.id, limit.most, host.view.instance_type
                ),
                "choose fewer with --mount, detach others, or restore on another host",
            );
        }
    }
    let letters = |name: &str| -> String {
        let name = name.strip_prefix("/dev/").unwrap_or(name);
        let name = name.strip_prefix("xvd").or(name.strip_prefix("sd")).unwrap_or(name);
        name.trim_end_matches(|c: char| c.is_ascii_digit()).to_owned()
    };
    // /dev/sdf and /dev/xvdf are one name to some kernels (EC2 guide, "Device names for volumes").
    let used: Vec<String> = taken.iter().map(|n| letters(n)).collect();
    let safe = ('f'..='p').rev().map(|c| format!("/dev/sd{c}"));
    let more = ('b'..='e').rev().chain(('q'..='z').rev()).map(|c| format!("/dev/sd{c}"));
    let many = ('b'..='c').flat_map(|a| ('a'..='z').map(move |b| format!("/dev/xvd{a}{b}")));
    let mut free: Vec<String> =
        safe.chain(more).chain(many).filter(|n| !used.contains(&letters(n))).take(wanted + SPARE).collect();
    if free.len() < wanted {
        return no(
            format!("{} has {} free device names of {wanted}", host.id, free.len()),
            "detach others first",
        );
    }
    let spare = free.split_off(wanted);
    Ok((free, spare))
}
