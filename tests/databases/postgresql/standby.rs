//! A standby: held where that is allowed, and what a set of it is worth.

use std::time::Duration;

use nix::sys::signal::Signal;
use rig::Rig;
use rig::hooks::hook;
use rig::patience::let_pass;
use rig::postgresql::{Cluster, Load, Restored, facts, program, snapshot_of};
use rig::probe::assert_settled;

use super::{VOLUMES, cluster, refused};

#[test]
fn a_standby_is_held_when_that_is_allowed() {
    let rig = Rig::start(&VOLUMES);
    let mut primary = cluster(&rig, "");
    Load::prepare(&primary);
    primary.stop(Signal::SIGINT);
    let (data, copy) = (&primary.data, rig.mount("data").join("standby"));
    let (data_text, copy_text) = (data.to_str().unwrap(), copy.to_str().unwrap());
    rig::sh("cp", &["-a", data_text, copy_text]);
    rig::sh("cp", &["-a", rig.mount("wal").join("pg_wal").to_str().unwrap(), &format!("{copy_text}/wal")]);
    rig::sh("ln", &["-sfn", &format!("{copy_text}/wal"), &format!("{copy_text}/pg_wal")]);
    rig::sh("touch", &[&format!("{copy_text}/standby.signal")]);
    let primary = Cluster::start(data, &primary.run, &[]).unwrap();
    let from = format!("primary_conninfo=host={} user=postgres", primary.run.display());
    let standby = Cluster::start(&copy, &rig.path("standby-run"), &[&from]).unwrap();

    refused(&rig, &standby.section(""), &[], &["is a standby", "allow_standby = true"]);
    let load = Load::start(&primary);
    let mut records = Vec::new();
    for mode in ["checkpoint", "backup"] {
        let_pass("transfers", Duration::from_millis(300));
        rig.configure(&standby.section(&format!("allow_standby = true\nmode = \"{mode}\"")));
        records.push(rig.run(&["snapshot", "-o", "json"]).exits(0).record());
    }
    let seen = load.stop();
    for record in &records {
        assert_eq!(record["achieved"], "application", "{record:#}");
        let facts = facts(record);
        assert_eq!((facts["role"].as_str(), facts["timeline"].as_str()), ("standby", "1"));
        assert!(!facts["lsn"].is_empty() && !facts["lsn_after"].is_empty(), "{facts:#?}");
    }
    assert!(facts(&records[1])["backup_label"].contains("BACKUP FROM: standby"), "{:#?}", facts(&records[1]));
    // A hook after it promotes the standby when that hook is released: after the thaw, before the standby is
    // released.
    let promote = format!(
        "exec runuser -u postgres -- {} promote -w -D {}",
        program("pg_ctl").display(),
        copy.display()
    );
    let promoting = hook("promoter", "true", &promote, "");
    rig.configure(&format!("{}{promoting}", standby.section("allow_standby = true")));
    let lowered = rig.run(&["snapshot", "-o", "json"]);
    let record = lowered.exits(22).record();
    lowered.says("was not quiesced all the time: it was promoted");
    assert_eq!(record["achieved"], "filesystem", "{record:#}");

    // The copy is whole. How much a standby has replayed by then is not fixed, so no transaction has to be
    // in.
    let of = |volume| snapshot_of(&rig, &records[1], volume);
    let volumes = Restored::mount_folder(&rig, "restored", &of("data"), &of("wal"), "standby");
    std::fs::remove_file(volumes.data.join("standby.signal")).unwrap();
    let restored = volumes.start(&[]).unwrap_or_else(|log| panic!("{log}"));
    seen.assert_restored(&restored, 0, i128::MAX);
    assert_settled(&rig);
}
