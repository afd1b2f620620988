//! Findings for people and for programs.
//!
//! In: findings. Out: text of a given width, worst first, or JSON. Must never: leave one out.

use serde::Serialize;

use super::page::Page;
use crate::doctor::{Finding, Severity, exit};

/// Version of the JSON form. It grows when a field changes its meaning or goes.
pub(crate) const VERSION: u32 = 1;

/// The findings as JSON.
///
/// # Errors
/// Never with today's types; the serializer's own error is passed on.
pub fn json(plan: &str, findings: &[Finding]) -> Result<String, serde_json::Error> {
    #[derive(Serialize)]
    struct Envelope<'a> {
        version: u32,
        plan: &'a str,
        exit_code: u8,
        findings: &'a [Finding],
    }
    let exit_code = exit(findings).code();
    serde_json::to_string_pretty(&Envelope { version: VERSION, plan, exit_code, findings })
}

/// The findings for people: problems and warnings with the reason and the remedy, the others on a line each.
#[must_use]
pub fn human(plan: &str, findings: &[Finding], width: usize) -> String {
    let mut page = Page::new(width);
    let count = |s| findings.iter().filter(|f| f.severity == s).count();
    let plural = |n, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let headline = format!(
        "Plan {plan}: {}, {}, {} not checked, {} fine.",
        plural(count(Severity::Problem), "problem"),
        plural(count(Severity::Warning), "warning"),
        count(Severity::NotChecked),
        count(Severity::Ok)
    );
    page.wrapped("", "", &headline);
    for (severity, title) in [(Severity::Problem, "Problems"), (Severity::Warning, "Warnings")] {
        let those: Vec<_> = findings.iter().filter(|f| f.severity == severity).collect();
        if those.is_empty() {
            continue;
        }
        page.heading(title);
        for finding in those {
            page.wrapped(&format!("  {}: ", finding.id), "    ", &finding.what);
            if !finding.at.is_empty() {
                page.wrapped("      at:  ", "           ", &finding.at.join(", "));
            }
            if let Some(why) = &finding.why {
                page.wrapped("      why: ", "           ", why);
            }
            if let Some(remedy) = &finding.remedy {
                let mut lines = remedy.lines();
                page.wrapped("      do:  ", "           ", lines.next().unwrap_or_default());
                // A policy is meant to be copied, so it is not wrapped.
                lines.for_each(|line| page.line(&format!("      {}", line.trim())));
            }
        }
    }
    for (severity, title) in [(Severity::NotChecked, "Not checked"), (Severity::Ok, "Fine")] {
        let those: Vec<_> = findings.iter().filter(|f| f.severity == severity).collect();
        if !those.is_empty() {
            page.heading(title);
        }
        for finding in those {
            let what = finding.what.strip_prefix("not checked: ").unwrap_or(&finding.what);
            page.wrapped(&format!("  {}: ", finding.id), "    ", what);
        }
    }
    page.finish()
}
