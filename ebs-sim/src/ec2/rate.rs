//! Whether a request comes too soon.
//!
//! In: a request's action and parameters. Out: nothing, or RequestLimitExceeded. It must come before the
//! parameters are checked: a malformed request costs a token too.

use jiff::Timestamp;

use super::error::Ec2Error;
use super::params::Params;
use crate::scenario::Limits;
use crate::throttle::{Class, Throttle};

/// Takes a token for a request, or refuses it.
pub fn check(
    throttle: &mut Throttle,
    limits: &Limits,
    region: &str,
    action: &str,
    params: &Params,
    now: Timestamp,
) -> Result<(), Ec2Error> {
    if throttle.take(limits, region, action, class_of(action, params), now) {
        return Ok(());
    }
    Err(Ec2Error::new("RequestLimitExceeded", "Request limit exceeded.").status(503))
}

fn class_of(action: &str, params: &Params) -> Class {
    let is_narrowed = ["Filter.", "MaxResults", "NextToken"].iter().any(|name| params.any(name));
    Class::of(action, is_narrowed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Bucket;

    #[test]
    fn only_some_actions_mind_that_nothing_is_filtered() {
        let class = |action, form: &str| class_of(action, &Params::parse(&[form.as_bytes()]));
        assert_eq!(class("DescribeSnapshots", "SnapshotId.1=snap-1"), Class::Unfiltered);
        assert_eq!(class("DescribeSnapshots", "Filter.1.Name=status"), Class::Usual);
        assert_eq!(class("DescribeVolumes", "MaxResults=5"), Class::Usual);
        assert_eq!(class("DescribeTags", ""), Class::Usual);
    }

    #[test]
    fn what_comes_too_soon_is_refused_as_ec2_does() {
        let mut limits = Limits::default();
        limits.bucket.insert("CreateSnapshots".into(), Bucket { size: 1.0, refill: 0.5 });
        let (mut throttle, none, now) = (Throttle::default(), Params::parse(&[]), Timestamp::UNIX_EPOCH);
        let mut ask = || check(&mut throttle, &limits, "us-east-1", "CreateSnapshots", &none, now);
        assert_eq!(ask(), Ok(()));
        let error = ask().expect_err("the bucket is empty");
        assert_eq!((error.code.as_str(), error.status), ("RequestLimitExceeded", 503));
    }
}
