//! The Recycle Bin's own API, version 2021-06-15: CreateRule, GetRule, ListRules, DeleteRule.
//!
//! In: JSON. Out: retention rules of the caller's account and Region. What the service's model does not allow must
//! never become a rule. Rules cannot be locked, changed or tagged here.

use serde_json::{Map, Value, json};

use super::{Context, Done, invalid, part};
use crate::ec2::{Ec2Error, Need, partition};
use crate::http::Call;
use crate::scenario::{MAX_BIN_DAYS, MAX_BIN_TAGS, MAX_EXCLUDED};
use crate::world::{Rule, SNAPSHOT_RULES, TagPattern};

/// What rules can be about, and for how many days at most.
const TYPES: &[(&str, u32)] =
    &[(SNAPSHOT_RULES, MAX_BIN_DAYS), ("EC2_IMAGE", MAX_BIN_DAYS), ("EBS_VOLUME", 7)];

pub enum Operation {
    Create(Box<NewRule>),
    Get(String),
    List { resource_type: String, max_results: usize, next: Option<String> },
    Delete(String),
}

/// A rule without its place.
pub struct NewRule {
    description: Option<String>,
    days: u32,
    resource_type: String,
    tags: Vec<TagPattern>,
    excluded: Vec<TagPattern>,
}

fn wrong(message: impl Into<String>) -> Ec2Error {
    invalid("INVALID_PARAMETER_VALUE", message)
}

/// An object of which each member is taken once; what is left is an error.
struct Members(Map<String, Value>);

impl Members {
    fn read(value: Value) -> Result<Self, Ec2Error> {
        match value {
            Value::Object(members) => Ok(Self(members)),
            other => Err(wrong(format!("{other} is no structure"))),
        }
    }

    fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name).filter(|value| !value.is_null())
    }

    fn text(&mut self, name: &str) -> Result<Option<String>, Ec2Error> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(wrong(format!("{name}: {other} is no string"))),
        }
    }

    fn required(&mut self, name: &str) -> Result<String, Ec2Error> {
        self.text(name)?.ok_or_else(|| wrong(format!("{name} is required")))
    }

    fn number(&mut self, name: &str) -> Result<Option<u64>, Ec2Error> {
        match self.take(name) {
            None => Ok(None),
            Some(value) => match value.as_u64() {
                Some(number) => Ok(Some(number)),
                None => Err(wrong(format!("{name}: {value} is no number"))),
            },
        }
    }

    fn list(&mut self, name: &str) -> Result<Vec<Value>, Ec2Error> {
        match self.take(name) {
            None => Ok(Vec::new()),
            Some(Value::Array(all)) => Ok(all),
            Some(other) => Err(wrong(format!("{name}: {other} is no list"))),
        }
    }

    fn finish(self) -> Result<(), Ec2Error> {
        match self.0.into_iter().find(|(_, value)| !value.is_null()) {
            None => Ok(()),
            Some((name, _)) => Err(wrong(format!("{name} is not supported here"))),
        }
    }
}

fn patterns(members: &mut Members, name: &str, most: usize) -> Result<Vec<TagPattern>, Ec2Error> {
    let all = members.list(name)?;
    if all.len() > most {
        return Err(wrong(format!("{name}: at most {most}")));
    }
    let pattern = |value| {
        let mut members = Members::read(value)?;
        let key = members.required("ResourceTagKey")?;
        let value = members.text("ResourceTagValue")?;
        members.finish()?;
        if key.is_empty() || key.chars().count() > 128 {
            return Err(wrong("ResourceTagKey has 1 to 128 characters"));
        }
        if value.as_ref().is_some_and(|value| value.chars().count() > 256) {
            return Err(wrong("ResourceTagValue has at most 256 characters"));
        }
        Ok(TagPattern { key, value })
    };
    all.into_iter().map(pattern).collect()
}

fn resource_type(members: &mut Members) -> Result<(String, u32), Ec2Error> {
    let named = members.required("ResourceType")?;
    match TYPES.iter().find(|(known, _)| *known == named) {
        Some((_, days)) => Ok((named, *days)),
        None => Err(wrong(format!("ResourceType: {named} is not EBS_SNAPSHOT, EC2_IMAGE or EBS_VOLUME"))),
    }
}

impl NewRule {
    fn read(value: Value) -> Result<Self, Ec2Error> {
        let mut members = Members::read(value)?;
        let (resource_type, most) = resource_type(&mut members)?;
        let mut period = Members::read(members.take("RetentionPeriod").unwrap_or(Value::Null))
            .map_err(|_| wrong("RetentionPeriod is required"))?;
        let unit = period.required("RetentionPeriodUnit")?;
        let days = period.number("RetentionPeriodValue")?;
        period.finish()?;
        if unit != "DAYS" {
            return Err(wrong(format!("RetentionPeriodUnit: {unit} is not DAYS")));
        }
        let days = days
            .and_then(|days| u32::try_from(days).ok())
            .filter(|days| (1..=most).contains(days))
            .ok_or_else(|| {
                wrong(format!("RetentionPeriodValue is between 1 and {most} for {resource_type}"))
            })?;
        let description = members.text("Description")?;
        if description.as_ref().is_some_and(|text| text.chars().count() > 255) {
            return Err(wrong("Description has at most 255 characters"));
        }
        let tags = patterns(&mut members, "ResourceTags", MAX_BIN_TAGS)?;
        let excluded = patterns(&mut members, "ExcludeResourceTags", MAX_EXCLUDED)?;
        if !tags.is_empty() && !excluded.is_empty() {
            return Err(wrong("ExcludeResourceTags is for rules without ResourceTags"));
        }
        members.finish()?;
        Ok(Self { description, days, resource_type, tags, excluded })
    }
}

impl Operation {
    pub fn parse(call: &Call) -> Result<Self, Ec2Error> {
        Ok(match (call.method.as_str(), call.uri.path()) {
            ("POST", "/rules") => Self::Create(Box::new(NewRule::read(super::json(call)?)?)),
            ("POST", _) => {
                let mut members = Members::read(super::json(call)?)?;
                let (resource_type, _) = resource_type(&mut members)?;
                let max_results = members.number("MaxResults")?.unwrap_or(1000);
                if !(1..=1000).contains(&max_results) {
                    return Err(wrong("MaxResults is between 1 and 1000"));
                }
                let next = members.text("NextToken")?;
                members.finish()?;
                let max_results = usize::try_from(max_results).unwrap_or(1000);
                Self::List { resource_type, max_results, next }
            }
            ("DELETE", _) => Self::Delete(part(call, 2)),
            _ => Self::Get(part(call, 2)),
        })
    }

    pub fn needs(&self, action: &'static str, context: &Context) -> Vec<Need> {
        let id = match self {
            Self::Create(_) | Self::List { .. } => "*",
            Self::Get(id) | Self::Delete(id) => id,
        };
        vec![Need::of("rbin", action, &context.account, &format!("rule/{id}"))]
    }

    pub fn act(self, context: &Context) -> Result<Done, Ec2Error> {
        match self {
            Self::Create(new) => {
                let rule = Rule {
                    id: Rule::new_id(),
                    account: context.account.clone(),
                    region: context.region().to_owned(),
                    description: new.description,
                    days: new.days,
                    resource_type: new.resource_type,
                    tags: new.tags,
                    excluded: new.excluded,
                };
                let shown = whole(&rule);
                context.sim.change().rules.push(rule);
                Ok(Done::json(201, &shown))
            }
            Self::Get(id) => {
                let world = context.sim.world();
                Ok(Done::json(200, &whole(find(&world.rules, context, &id)?)))
            }
            Self::Delete(id) => {
                let mut world = context.sim.change();
                find(&world.rules, context, &id)?;
                world.rules.retain(|rule| rule.id != id);
                let mut done = Done::json(204, &json!({}));
                done.body = axum::body::Bytes::new();
                Ok(done)
            }
            Self::List { resource_type, max_results, next } => {
                let world = context.sim.world();
                let meant: Vec<&Rule> = world
                    .rules
                    .iter()
                    .filter(|rule| is_here(rule, context) && rule.resource_type == resource_type)
                    .collect();
                let from = match next {
                    None => 0,
                    // The token is the id of the first rule of the page.
                    Some(id) => meant
                        .iter()
                        .position(|rule| rule.id == id)
                        .ok_or_else(|| invalid("INVALID_PAGE_TOKEN", "The pagination token is not valid"))?,
                };
                let mut page = meant[from..].iter();
                let shown: Vec<Value> = page.by_ref().take(max_results).map(|rule| part_of(rule)).collect();
                let mut body = json!({ "Rules": shown });
                if let Some(following) = page.next() {
                    body["NextToken"] = following.id.clone().into();
                }
                Ok(Done::json(200, &body))
            }
        }
    }
}

fn is_here(rule: &Rule, context: &Context) -> bool {
    rule.account == context.account && rule.region == context.region()
}

fn find<'a>(rules: &'a [Rule], context: &Context, id: &str) -> Result<&'a Rule, Ec2Error> {
    rules.iter().find(|rule| rule.id == id && is_here(rule, context)).ok_or_else(|| {
        Ec2Error::new("ResourceNotFoundException/RULE_NOT_FOUND", format!("The rule {id} does not exist"))
            .status(404)
    })
}

/// A rule as ListRules shows it.
fn part_of(rule: &Rule) -> Value {
    let (region, account) = (&rule.region, &rule.account);
    let arn = format!("arn:{}:rbin:{region}:{account}:rule/{}", partition(region), rule.id);
    let mut shown = json!({
        "Identifier": rule.id,
        "RetentionPeriod": { "RetentionPeriodValue": rule.days, "RetentionPeriodUnit": "DAYS" },
        "LockState": "unlocked",
        "RuleArn": arn,
    });
    if let Some(description) = &rule.description {
        shown["Description"] = description.clone().into();
    }
    shown
}

/// A rule as the other operations show it.
fn whole(rule: &Rule) -> Value {
    let tags = |patterns: &[TagPattern]| -> Value {
        let tag = |pattern: &TagPattern| match &pattern.value {
            Some(value) => json!({ "ResourceTagKey": pattern.key, "ResourceTagValue": value }),
            None => json!({ "ResourceTagKey": pattern.key }),
        };
        patterns.iter().map(tag).collect()
    };
    let mut shown = part_of(rule);
    shown["ResourceType"] = rule.resource_type.clone().into();
    shown["Status"] = "available".into();
    shown["ResourceTags"] = tags(&rule.tags);
    shown["ExcludeResourceTags"] = tags(&rule.excluded);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(change: impl FnOnce(&mut Value)) -> Result<NewRule, String> {
        let mut rule = json!({
            "ResourceType": "EBS_SNAPSHOT",
            "RetentionPeriod": { "RetentionPeriodValue": 7, "RetentionPeriodUnit": "DAYS" },
        });
        change(&mut rule);
        NewRule::read(rule).map_err(|error| format!("{}: {}", error.code, error.message))
    }

    #[test]
    fn a_rule_is_as_the_services_model_allows() {
        let tag = json!([{ "ResourceTagKey": "k", "ResourceTagValue": "" }, { "ResourceTagKey": "l" }]);
        let rule = read(|rule| rule["ResourceTags"] = tag.clone()).expect("good");
        assert_eq!((rule.days, rule.tags.len(), rule.tags[1].value.is_none()), (7, 2, true));
        assert!(read(|rule| rule["ExcludeResourceTags"] = tag.clone()).is_ok());
        type Change = fn(&mut Value);
        let bad: &[(&str, Change)] = &[
            ("ResourceType", |rule| rule["ResourceType"] = "TAPE".into()),
            ("ResourceType", |rule| rule["ResourceType"] = Value::Null),
            ("RetentionPeriod", |rule| rule["RetentionPeriod"] = Value::Null),
            ("RetentionPeriodValue", |rule| rule["RetentionPeriod"]["RetentionPeriodValue"] = 0.into()),
            ("RetentionPeriodValue", |rule| rule["RetentionPeriod"]["RetentionPeriodValue"] = 366.into()),
            ("RetentionPeriodValue", |rule| rule["RetentionPeriod"]["RetentionPeriodValue"] = "x".into()),
            ("RetentionPeriodUnit", |rule| rule["RetentionPeriod"]["RetentionPeriodUnit"] = "HOURS".into()),
            ("ResourceTags", |rule| rule["ResourceTags"] = "k".into()),
            ("ResourceTagKey", |rule| rule["ResourceTags"] = json!([{}])),
            ("ResourceTagKey", |rule| rule["ResourceTags"] = json!([{ "ResourceTagKey": "" }])),
            ("Colour", |rule| rule["Colour"] = "red".into()),
            ("LockConfiguration", |rule| rule["LockConfiguration"] = json!({})),
        ];
        for (named, change) in bad {
            let error = read(change).err().unwrap_or_default();
            assert!(error.starts_with("ValidationException/INVALID_PARAMETER_VALUE: "), "{named}: {error}");
            assert!(error.contains(named), "{named}: {error}");
        }
        let both = read(|rule| {
            rule["ResourceTags"] = tag.clone();
            rule["ExcludeResourceTags"] = tag.clone();
        });
        assert!(both.is_err_and(|error| error.contains("ExcludeResourceTags")));
        assert!(read(|rule| rule["ResourceType"] = "EBS_VOLUME".into()).is_ok());
    }
}
