//! What agents have in common: processes of their own that do what `stillpoint snapshot` does.
//!
//! In: a configuration; what a run has come to. Out: EC2 and the facts, as the program gets them; its way to end.

use std::path::Path;
use std::time::Duration;

use stillpoint::clock;
use stillpoint::config::Loaded;
use stillpoint::discover::{self, Facts};
use stillpoint::ec2::Describe as _;
use stillpoint::ec2::aws::Aws;
use stillpoint::ec2::connect::connect;
use stillpoint::ec2::imds::identity;
use stillpoint::error::Error;
use stillpoint::exit::Exit;
use stillpoint::host::inspect::{Answers, Helper};
use stillpoint::host::kernel::die_by;
use stillpoint::run::take::Outcome;

use crate::stillpoint;

/// EC2, and the facts of this host by that name.
pub async fn facts(loaded: &Loaded, hostname: &str) -> (Aws, Facts) {
    let identity = identity(&loaded.settings.identity, &clock::System).await.unwrap();
    let real = Aws::new(connect(loaded, &identity.region, Duration::from_secs(60), 4).await.unwrap());
    let root_device = real.instance(&identity.instance_id).await.unwrap().root_device_name;
    let volumes = real.volumes(&identity.instance_id).await.unwrap();
    let inspect = Helper::new(stillpoint(), Helper::PLANNING);
    let host = discover::host(Path::new("/"), &inspect, Answers::default()).unwrap();
    let facts = discover::facts(identity, hostname.to_owned(), root_device, volumes, host);
    (real, facts)
}

/// Prints what a run has come to, and ends as the program does: by the signal, or with this code.
pub fn ended(outcome: Result<Outcome, Error>) -> u8 {
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(e) => {
            eprintln!("{}", e.render());
            if let Some(signal) = e.signal {
                die_by(signal);
            }
            return e.exit.code();
        }
    };
    println!("{}", serde_json::to_string(&outcome.record).unwrap());
    match outcome.signal {
        Some(signal) if outcome.record.exit != Exit::StillFrozen => die_by(signal),
        _ => outcome.record.exit.code(),
    }
}
