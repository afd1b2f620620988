//! Options as words again, for another process of this program.
//!
//! In: options that were read. Out: words that are read as the same. Must never: leave one out: each struct is taken
//! apart whole, and a test gives each option.

use std::ffi::{OsStr, OsString};

use super::{Global, OfSet, Selection};
use crate::config::settings::OnDegraded;
use crate::ids::{InstanceId, VolumeId};

#[derive(Default)]
struct Words(Vec<OsString>);

impl Words {
    fn each<T: AsRef<OsStr>>(&mut self, name: &str, values: impl IntoIterator<Item = T>) {
        for value in values {
            let mut option = OsString::from(format!("--{name}="));
            option.push(value);
            self.0.push(option);
        }
    }

    fn flag(&mut self, name: &str, given: bool) {
        self.0.extend(given.then(|| format!("--{name}").into()));
    }
}

impl Global {
    /// Its options.
    pub(super) fn words(&self) -> Vec<OsString> {
        let Self { config, verbose, instance_id, region, imds_endpoint, endpoint_url, run_dir, state_dir } =
            self;
        let mut all = Words::default();
        all.each("config", config);
        all.flag("verbose", *verbose);
        all.each("instance-id", instance_id.as_ref().map(InstanceId::as_str));
        all.each("region", region);
        all.each("imds-endpoint", imds_endpoint);
        all.each("endpoint-url", endpoint_url);
        all.each("run-dir", run_dir);
        all.each("state-dir", state_dir);
        all.0
    }
}

impl OfSet {
    /// Its options, then the plan.
    pub(super) fn words(&self) -> Vec<OsString> {
        let Self { selection, window, tag } = self;
        let Selection {
            plan,
            mount,
            volume,
            volume_tag,
            exclude_mount,
            exclude_volume,
            exclude_boot_volume,
            allow_partial,
            allow_pid_namespace,
            consistency,
            on_degraded,
        } = selection;
        let pair = |(key, value): &(String, String)| format!("{key}={value}");
        let mut all = Words::default();
        all.each("mount", mount);
        all.each("volume", volume.iter().map(VolumeId::as_str));
        all.each("volume-tag", volume_tag.iter().map(pair));
        all.each("exclude-mount", exclude_mount);
        all.each("exclude-volume", exclude_volume.iter().map(VolumeId::as_str));
        all.flag("exclude-boot-volume", *exclude_boot_volume);
        all.flag("allow-partial", *allow_partial);
        all.flag("allow-pid-namespace", *allow_pid_namespace);
        all.each("consistency", consistency.map(|c| c.to_string()));
        all.each("on-degraded", on_degraded.map(OnDegraded::word));
        all.each("window", window.map(|time| humantime::format_duration(time).to_string()));
        all.each("tag", tag.iter().map(pair));
        // No plan's name begins with a dash: clap has refused it.
        all.0.extend(plan.iter().map(OsString::from));
        all.0
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, FromArgMatches as _};

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct All {
        #[command(flatten)]
        global: Global,
        #[command(flatten)]
        of_set: OfSet,
    }

    /// Every option, with the plan.
    fn given() -> Vec<OsString> {
        let mut words = vec!["x".to_owned()];
        for option in All::command().get_arguments() {
            let Some(long) = option.get_long() else { continue };
            let value = match long {
                "verbose" | "exclude-boot-volume" | "allow-partial" | "allow-pid-namespace" => None,
                "mount" | "exclude-mount" | "config" | "run-dir" | "state-dir" => Some("/a b"),
                "volume" | "exclude-volume" => Some("vol-0123456789abcdef0"),
                "instance-id" => Some("i-0123456789abcdef0"),
                "consistency" => Some("filesystem"),
                "on-degraded" => Some("keep"),
                "window" => Some("2s 500ms"),
                "volume-tag" | "tag" => Some("a=b=c"),
                _ => Some("-x"),
            };
            words.push(value.map_or_else(|| format!("--{long}"), |value| format!("--{long}={value}")));
        }
        words.push("plan".to_owned());
        words.into_iter().map(OsString::from).collect()
    }

    #[test]
    fn each_option_is_a_word_again() {
        let read = |words: Vec<OsString>| {
            All::from_arg_matches(&All::command().try_get_matches_from(words).unwrap()).unwrap()
        };
        let given = given();
        assert!(given.len() > 18, "{given:?}");
        let first = read(given.clone());
        let again = [vec!["x".into()], first.global.words(), first.of_set.words()].concat();
        assert_eq!(again.len(), given.len(), "{again:?}");
        assert_eq!(format!("{:?}", read(again)), format!("{first:?}"));
    }
}
