//! The Condition element of a policy's statement.
//!
//! In: operators, condition keys and values; later what is known of a request. Out: whether the condition holds.
//! A key that a request does not have must make a condition fail, but where IAM says otherwise.

use jiff::Timestamp;
use serde_json::Value;

use super::{Facts, matches_arn, matches_text, texts};

/// Condition keys that requests here can have; in small letters, as IAM does not tell the case apart.
const KEYS: &[&str] = &[
    "aws:requestedregion",
    "aws:tagkeys",
    "ec2:availabilityzone",
    "ec2:createaction",
    "ec2:encrypted",
    "ec2:imageid",
    "ec2:instanceid",
    "ec2:owner",
    "ec2:parentsnapshot",
    "ec2:parentvolume",
    "ec2:region",
    "ec2:snapshotid",
    "ec2:snapshottime",
    "ec2:volumeid",
    "ec2:volumesize",
    "ec2:volumetype",
];
/// Those that go on with a tag's key.
const TAG_KEYS: &[&str] = &["aws:requesttag/", "aws:resourcetag/", "ec2:resourcetag/"];
/// Those that may have several values, which alone are for ForAllValues and ForAnyValue.
const MANY: &[&str] = &["aws:tagkeys"];

/// How a value is compared with one of the policy's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compare {
    Equals,
    EqualsIgnoreCase,
    Like,
    Arn,
    Bool,
    Number(Order),
    Date(Order),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Equal,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

/// Which of several values of one key have to match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    /// There is one.
    Only,
    All,
    Any,
}

#[derive(Debug, Clone)]
enum Test {
    /// `Null`: whether the key is to be absent.
    Absent(bool),
    Value {
        compare: Compare,
        not: bool,
        if_exists: bool,
        which: Which,
    },
}

/// One operator with one key.
#[derive(Debug, Clone)]
pub struct Condition {
    key: String,
    test: Test,
    values: Vec<String>,
}

/// Reads the element: all of what it holds has to hold.
pub fn read(value: Value) -> Result<Vec<Condition>, String> {
    let Value::Object(operators) = value else { return Err("Condition is no JSON object".into()) };
    let mut conditions = Vec::new();
    for (operator, keys) in operators {
        let Value::Object(keys) = keys else { return Err(format!("Condition {operator} is no JSON object")) };
        for (key, values) in keys {
            let name = key.to_ascii_lowercase();
            let known = |prefix: &&&str| name.len() > prefix.len() && name.starts_with(**prefix);
            if !KEYS.contains(&name.as_str()) && !TAG_KEYS.iter().any(|prefix| known(&prefix)) {
                return Err(format!("the condition key {key} is not known here"));
            }
            let values = texts(&key, values)?;
            let test = test(&operator, &values)?;
            if let Test::Value { which, .. } = test
                && (which == Which::Only) == MANY.contains(&name.as_str())
            {
                return Err(format!("{operator} on {key}: ForAllValues and ForAnyValue are for {}", MANY[0]));
            }
            conditions.push(Condition { key: name, test, values });
        }
    }
    Ok(conditions)
}

fn test(operator: &str, values: &[String]) -> Result<Test, String> {
    let unknown = || format!("the condition operator {operator} is not known here");
    if operator == "Null" {
        return match values {
            [one] if one == "true" || one == "false" => Ok(Test::Absent(one == "true")),
            _ => Err("Null takes true or false".into()),
        };
    }
    let (which, bare) = match operator.split_once(':') {
        None => (Which::Only, operator),
        Some(("ForAllValues", bare)) => (Which::All, bare),
        Some(("ForAnyValue", bare)) => (Which::Any, bare),
        Some(_) => return Err(unknown()),
    };
    let (bare, if_exists) = match bare.strip_suffix("IfExists") {
        Some(bare) => (bare, true),
        None => (bare, false),
    };
    let (compare, not) = match bare {
        "StringEquals" => (Compare::Equals, false),
        "StringNotEquals" => (Compare::Equals, true),
        "StringEqualsIgnoreCase" => (Compare::EqualsIgnoreCase, false),
        "StringNotEqualsIgnoreCase" => (Compare::EqualsIgnoreCase, true),
        "StringLike" => (Compare::Like, false),
        "StringNotLike" => (Compare::Like, true),
        "ArnEquals" | "ArnLike" => (Compare::Arn, false),
        "ArnNotEquals" | "ArnNotLike" => (Compare::Arn, true),
        "Bool" => (Compare::Bool, false),
        _ => {
            let (kind, order): (fn(Order) -> Compare, &str) =
                match (bare.strip_prefix("Numeric"), bare.strip_prefix("Date")) {
                    (Some(order), _) => (Compare::Number, order),
                    (_, Some(order)) => (Compare::Date, order),
                    _ => return Err(unknown()),
                };
            let (order, not) = match order {
                "Equals" => (Order::Equal, false),
                "NotEquals" => (Order::Equal, true),
                "LessThan" => (Order::Less, false),
                "LessThanEquals" => (Order::LessEqual, false),
                "GreaterThan" => (Order::Greater, false),
                "GreaterThanEquals" => (Order::GreaterEqual, false),
                _ => return Err(unknown()),
            };
            (kind(order), not)
        }
    };
    let makes_sense = |value: &String| match compare {
        Compare::Number(_) => value.parse::<f64>().is_ok(),
        Compare::Date(_) => value.parse::<Timestamp>().is_ok(),
        Compare::Bool => value == "true" || value == "false",
        _ => true,
    };
    if let Some(bad) = values.iter().find(|value| !makes_sense(value)) {
        return Err(format!("{operator}: {bad:?} cannot be compared so"));
    }
    Ok(Test::Value { compare, not, if_exists, which })
}

impl Condition {
    pub fn holds(&self, facts: &Facts) -> bool {
        let actual = facts.get(&self.key);
        let (compare, not, if_exists, which) = match self.test {
            Test::Absent(absent) => return actual.is_none() == absent,
            Test::Value { compare, not, if_exists, which } => (compare, not, if_exists, which),
        };
        let matches = |value: &String| self.values.iter().any(|wanted| compare.holds(wanted, value)) != not;
        match (actual, which) {
            // Of no values at all, all match and none does.
            (None, Which::All) => true,
            (None, Which::Any) => if_exists,
            (None, Which::Only) => not || if_exists,
            (Some(values), Which::All) => values.iter().all(matches),
            (Some(values), Which::Any | Which::Only) => values.iter().any(matches),
        }
    }
}

impl Compare {
    fn holds(self, wanted: &str, actual: &str) -> bool {
        match self {
            Compare::Equals => wanted == actual,
            Compare::EqualsIgnoreCase => wanted.eq_ignore_ascii_case(actual),
            Compare::Bool => wanted == actual,
            Compare::Like => matches_text(wanted, actual),
            Compare::Arn => matches_arn(wanted, actual),
            Compare::Number(order) => match (wanted.parse::<f64>(), actual.parse::<f64>()) {
                (Ok(wanted), Ok(actual)) => order.holds(actual.partial_cmp(&wanted)),
                _ => false,
            },
            Compare::Date(order) => match (wanted.parse::<Timestamp>(), actual.parse::<Timestamp>()) {
                (Ok(wanted), Ok(actual)) => order.holds(Some(actual.cmp(&wanted))),
                _ => false,
            },
        }
    }
}

impl Order {
    fn holds(self, actual: Option<std::cmp::Ordering>) -> bool {
        actual.is_some_and(|actual| match self {
            Order::Equal => actual.is_eq(),
            Order::Less => actual.is_lt(),
            Order::LessEqual => actual.is_le(),
            Order::Greater => actual.is_gt(),
            Order::GreaterEqual => actual.is_ge(),
        })
    }
}
