//! Metrics of all plans in Prometheus's text format.
//!
//! In: [`Tally`]s. Out: text for node_exporter's textfile collector. Must never: name a value that is not known, or
//! put a time stamp on a sample, which the collector refuses.

use std::fmt::Write;

use jiff::Timestamp;

use crate::consistency::Consistency;
use crate::run::tally::Tally;

/// The metrics, a family after the other.
#[must_use]
pub fn text(plans: &[Tally]) -> String {
    let mut out = Families(String::new());
    let version = [("version", env!("CARGO_PKG_VERSION").to_owned())];
    out.family("build_info", Type::Gauge, "The version that wrote this, as a label.");
    out.sample("build_info", &version, 1.0);
    out.each(plans, "runs_total", Type::Counter, "Runs of snapshot that ended, by exit code.", |plan| {
        plan.runs.iter().map(|(exit, n)| (Some(("exit_code", exit.code().to_string())), count(*n))).collect()
    });
    out.one(plans, "run_timestamp_seconds", "When the last run ended.", |p| p.last.map(|l| unix(l.at)));
    out.one(plans, "run_exit_code", "Exit code of the last run.", |p| {
        p.last.map(|l| f64::from(l.exit_code.code()))
    });
    out.one(plans, "last_success_timestamp_seconds", "When the last run ended with exit code 0.", |p| {
        p.success.map(unix)
    });
    let set = "When EC2 was asked for the newest set, whatever its label: its age counts from then.";
    out.one(plans, "set_timestamp_seconds", set, |p| p.set.map(|s| unix(s.requested)));
    out.each(plans, "set_label", Type::Gauge, "1 for the label of the newest set, 0 for the others.", |p| {
        p.set.map(|s| labels(s.achieved)).unwrap_or_default()
    });
    out.one(plans, "window_seconds", "Length of the newest set's frozen window.", |p| {
        p.set.map(|s| s.window_ms / 1e3)
    });
    out.one(plans, "stall_seconds", "The longest that one filesystem was frozen for the newest set.", |p| {
        p.set?.stall_ms.map(|ms| ms / 1e3)
    });
    out.one(plans, "call_seconds", "How long EC2 took to answer for the newest set.", |p| {
        p.set?.call_ms.map(|ms| ms / 1e3)
    });
    let pending = "Snapshots that EC2 was still reading when the last run ended.";
    out.one(plans, "pending_snapshots", pending, |p| p.last.map(|_| count(p.pending)));
    out.one(plans, "prune_timestamp_seconds", "When the last prune ended.", |p| {
        p.prune.map(|p| unix(p.ended.at))
    });
    out.one(plans, "prune_exit_code", "Exit code of the last prune.", |p| {
        p.prune.map(|p| f64::from(p.ended.exit_code.code()))
    });
    out.one(plans, "verify_timestamp_seconds", "When the last verify of a set of this host ended.", |p| {
        p.verify.map(|v| unix(v.at))
    });
    out.one(plans, "verify_exit_code", "Exit code of the last verify; 24 is a fault.", |p| {
        p.verify.map(|v| f64::from(v.exit_code.code()))
    });
    out.each(plans, "verify_faults_total", Type::Counter, "Verifies that found a fault.", |p| {
        p.verify.map(|_| (None, count(p.verify_faults))).into_iter().collect()
    });
    out.one(plans, "kept_sets", "Sets that the last prune kept.", |p| p.prune.map(|p| count(p.sets)));
    let bytes = "Sizes of the volumes of these sets together; what EC2 bills is less.";
    out.one(plans, "kept_bytes", bytes, |p| p.prune.map(|p| count(p.bytes)));
    out.each(plans, "removed_sets_total", Type::Counter, "Sets that prunes have removed.", |p| {
        p.prune.map(|_| (None, count(p.removed))).into_iter().collect()
    });
    clones(&mut out, plans);
    out.0
}

/// Clones have families of their own: they are no set that could be restored once the volumes are gone.
fn clones(out: &mut Families, plans: &[Tally]) {
    out.each(plans, "clone_runs_total", Type::Counter, "Runs of clone that ended, by exit code.", |plan| {
        let runs = plan.clones.iter().flat_map(|c| &c.runs);
        runs.map(|(exit, n)| (Some(("exit_code", exit.code().to_string())), count(*n))).collect()
    });
    out.one(plans, "clone_run_timestamp_seconds", "When the last run of clone ended.", |p| {
        Some(unix(p.clones.as_ref()?.last.at))
    });
    out.one(plans, "clone_run_exit_code", "Exit code of the last run of clone.", |p| {
        Some(f64::from(p.clones.as_ref()?.last.exit_code.code()))
    });
    let made = |p: &Tally| p.clones.as_ref()?.made;
    let newest = "When EC2 was asked for the newest clones, whatever their label.";
    out.one(plans, "clone_timestamp_seconds", newest, |p| Some(unix(made(p)?.requested)));
    let label = "1 for the label of the newest clones, 0 for the others.";
    out.each(plans, "clone_label", Type::Gauge, label, |p| {
        made(p).map(|c| labels(c.achieved)).unwrap_or_default()
    });
    out.one(plans, "clone_window_seconds", "Length of the newest clones' frozen window.", |p| {
        Some(made(p)?.window_ms / 1e3)
    });
    let stall = "The longest that one filesystem was frozen for the newest clones.";
    out.one(plans, "clone_stall_seconds", stall, |p| Some(made(p)?.stall_ms? / 1e3));
    out.one(plans, "clone_call_seconds", "How long EC2 took to answer for the newest clones.", |p| {
        Some(made(p)?.call_ms? / 1e3)
    });
}

/// A sample for each label.
fn labels(achieved: Consistency) -> Vec<Sample> {
    let labels = [Consistency::Crash, Consistency::Filesystem, Consistency::Application];
    let sample = |l: Consistency| (Some(("label", l.to_string())), f64::from(u8::from(l == achieved)));
    labels.map(sample).to_vec()
}

#[derive(Debug, Clone, Copy)]
enum Type {
    Counter,
    Gauge,
}

/// A sample's own label beside that of the plan, and its value.
type Sample = (Option<(&'static str, String)>, f64);

struct Families(String);

impl Families {
    fn family(&mut self, name: &str, kind: Type, help: &str) {
        let kind = match kind {
            Type::Counter => "counter",
            Type::Gauge => "gauge",
        };
        let _ = writeln!(self.0, "# HELP stillpoint_{name} {help}\n# TYPE stillpoint_{name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, String)], value: f64) {
        let labels: Vec<_> = labels.iter().map(|(k, v)| format!("{k}=\"{}\"", escaped(v))).collect();
        let _ = writeln!(self.0, "stillpoint_{name}{{{}}} {value}", labels.join(","));
    }

    /// A family with samples of each plan; left out where there is none.
    fn each(
        &mut self,
        plans: &[Tally],
        name: &str,
        kind: Type,
        help: &str,
        of: impl Fn(&Tally) -> Vec<Sample>,
    ) {
        let all: Vec<_> = plans.iter().map(|plan| (&plan.plan, of(plan))).collect();
        if all.iter().all(|(_, samples)| samples.is_empty()) {
            return;
        }
        self.family(name, kind, help);
        for (plan, samples) in all {
            for (label, value) in samples {
                let labels: Vec<_> = [("plan", plan.clone())].into_iter().chain(label).collect();
                self.sample(name, &labels, value);
            }
        }
    }

    /// A gauge with one sample a plan, where it is known.
    fn one(&mut self, plans: &[Tally], name: &str, help: &str, of: impl Fn(&Tally) -> Option<f64>) {
        self.each(plans, name, Type::Gauge, help, |plan| {
            of(plan).map(|value| (None, value)).into_iter().collect()
        });
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn unix(time: Timestamp) -> f64 {
    time.as_duration().as_secs_f64()
}

/// Exact up to 2^53.
fn count(n: u64) -> f64 {
    n as f64
}
