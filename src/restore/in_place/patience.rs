//! How often a way is tried again that failed by something that may pass.
//!
//! In: why it stopped, the time. Out: once more, or not. Pure. Must never: go on without end with what EC2 does not do in
//! time, or give up for a disturbance where nothing else could be put in place.

use std::time::Duration;

use super::super::make::{Stopped, is_name_in_use};

/// EC2 does not do in time what it began, or has a device name in use: each of these takes minutes. So many tries, where
/// there are other volumes that could be put in place, and where there are none.
const TRIES: (u32, u32) = (2, 6);
/// So long EC2 may throttle, fail, or be out of reach, where there are other volumes that could be put in place: they need
/// EC2, too.
const DISTURBED: Duration = Duration::from_secs(15 * 60);

/// How often, of one way.
#[derive(Debug)]
pub(super) struct Patience {
    tries: u32,
    /// Of the clock; none for no end.
    end: Option<Duration>,
}

impl Patience {
    /// Where other volumes could be put in place instead.
    pub(super) fn with_another_way(now: Duration) -> Self {
        Self { tries: TRIES.0, end: Some(now + DISTURBED) }
    }

    /// Where these are the last that could be put in place.
    pub(super) fn of_the_last_way() -> Self {
        Self { tries: TRIES.1, end: None }
    }

    /// Is it tried once more after this?
    pub(super) fn again(&mut self, stopped: &Stopped, now: Duration) -> bool {
        match stopped {
            Stopped::Late(_) => self.another_try(),
            Stopped::Ec2(e) if is_name_in_use(e) => self.another_try(),
            Stopped::Ec2(e) => e.passes() && self.end.is_none_or(|end| now < end),
            Stopped::Signal(_) | Stopped::Here(_) => false,
        }
    }

    fn another_try(&mut self) -> bool {
        self.tries = self.tries.saturating_sub(1);
        self.tries > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ec2::Ec2Error;

    #[test]
    fn what_does_not_pass_comes_to_an_end_and_a_disturbance_only_where_others_could_be_put_in_place() {
        let name = Ec2Error::refused("AttachVolume", "InvalidParameterValue", "/dev/sdf is already in use");
        let throttled = Stopped::Ec2(Ec2Error::refused("AttachVolume", "RequestLimitExceeded", "later"));
        let denied = Stopped::Ec2(Ec2Error::refused("AttachVolume", "UnauthorizedOperation", "no"));
        let (late, day) = (Stopped::Late("vol-1 is detaching".to_owned()), Duration::from_secs(86_400));
        let tries = |mut patience: Patience, stopped: &Stopped| {
            (1..100).find(|_| !patience.again(stopped, Duration::ZERO)).unwrap_or(100)
        };
        let (another, last) = (|| Patience::with_another_way(Duration::ZERO), Patience::of_the_last_way);
        for stopped in [&late, &Stopped::Ec2(name)] {
            assert_eq!((tries(another(), stopped), tries(last(), stopped)), (2, 6));
        }
        assert!(another().again(&throttled, Duration::from_secs(60)) && !another().again(&throttled, day));
        assert!(last().again(&throttled, day), "nobody is served by giving up");
        assert_eq!((tries(another(), &denied), tries(last(), &Stopped::Here(String::new()))), (1, 1));
        // One kind does not use up another's time, and all late ones count together.
        let mut mixed = another();
        assert!(mixed.again(&late, day) && !mixed.again(&throttled, day) && !mixed.again(&late, day));
    }
}
