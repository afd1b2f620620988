//! Transfers between accounts, and what has to be true of a database that was restored from under them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{Cluster, POSTGRES, as_postgres, connect, program, runtime};

/// Accounts of the load, and what each has at first.
pub const ACCOUNTS: i64 = 200;
pub const BALANCE: i64 = 1000;
const CLIENTS: usize = 3;

/// A transfer of a client, as it saw it.
#[derive(Debug, Clone, Copy)]
pub struct Transfer {
    /// Its number, from 1.
    pub number: i64,
    /// Before it was asked for, Unix nanoseconds.
    pub begun: i128,
    /// When its commit was acknowledged.
    pub acknowledged: i128,
}

/// Clients that transfer between accounts and note it in a table, without end.
pub struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Vec<Transfer>>>,
}

/// What the clients saw.
pub struct Seen {
    /// By client.
    pub transfers: BTreeMap<usize, Vec<Transfer>>,
}

impl Load {
    /// Makes the tables.
    pub fn prepare(cluster: &Cluster) {
        cluster.sql(&format!(
            "CREATE TABLE account (id int PRIMARY KEY, balance bigint NOT NULL); \
             INSERT INTO account SELECT i, {BALANCE} FROM generate_series(0, {ACCOUNTS} - 1) i; \
             CREATE TABLE history (client int, number bigint, source int, target int, amount int, filler text, \
             PRIMARY KEY (client, number)); CREATE INDEX ON history (source, target)"
        ));
    }

    pub fn start(cluster: &Cluster) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let clients = (0..CLIENTS).map(|client| {
            let (stop, run, port) = (Arc::clone(&stop), cluster.run.clone(), cluster.port);
            std::thread::spawn(move || runtime().block_on(transfers(client, &run, port, &stop)))
        });
        Self { clients: clients.collect(), stop }
    }

    pub fn stop(mut self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        let clients = std::mem::take(&mut self.clients);
        Seen { transfers: clients.into_iter().map(|c| c.join().unwrap()).enumerate().collect() }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed); // never joined here: they may be blocked
    }
}

fn now() -> i128 {
    jiff::Timestamp::now().as_nanosecond()
}

async fn transfers(client: usize, run: &Path, port: u16, stop: &AtomicBool) -> Vec<Transfer> {
    let session = connect(run, port).await.unwrap();
    let mut done = Vec::new();
    let first = session
        .query_one_scalar::<i64, str>(
            "SELECT coalesce(max(number), 0) + 1 FROM history WHERE client = $1::int",
            &[&i32::try_from(client).unwrap()],
        )
        .await
        .unwrap();
    let mut random = 0x9e37_79b9_u64.wrapping_mul(client as u64 + 1);
    for number in first.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (a, b) = ((random >> 33) % ACCOUNTS as u64, (random >> 45) % ACCOUNTS as u64);
        // Always in the same order: no deadlocks. The amount may be negative.
        let (source, target) = (a.min(b), a.max(b));
        let amount = i64::try_from(random >> 59).unwrap() - 16;
        let begun = now();
        let sql = format!(
            "BEGIN; UPDATE account SET balance = balance - {amount} WHERE id = {source}; \
             UPDATE account SET balance = balance + {amount} WHERE id = {target}; \
             INSERT INTO history VALUES ({client}, {number}, {source}, {target}, {amount}, repeat('x', 120)); COMMIT"
        );
        if session.batch_execute(&sql).await.is_err() {
            break; // the server was ended: what is not acknowledged may or may not be there
        }
        done.push(Transfer { number, begun, acknowledged: now() });
    }
    done
}

impl Seen {
    /// The longest time that a client waited for one transfer.
    pub fn longest(&self) -> Duration {
        let took = self.transfers.values().flatten().map(|t| t.acknowledged - t.begun);
        Duration::from_nanos(u64::try_from(took.max().unwrap_or(0)).unwrap())
    }

    pub fn count(&self) -> usize {
        self.transfers.values().map(Vec::len).sum()
    }

    /// The restored database is as it was between these times: what was acknowledged before `frozen` is
    /// there, what was begun after `point` is not, and nothing is half there.
    pub fn assert_restored(&self, restored: &Cluster, frozen: i128, point: i128) {
        for (client, transfers) in &self.transfers {
            let last = |before: &dyn Fn(&Transfer) -> bool| {
                transfers.iter().filter(|t| before(t)).map(|t| t.number).max().unwrap_or(0)
            };
            let (acknowledged, begun) =
                (last(&|t| t.acknowledged < frozen), last(&|t: &Transfer| t.begun < point));
            let number = restored
                .value(&format!("SELECT coalesce(max(number), 0) FROM history WHERE client = {client}"));
            let number: i64 = number.parse().unwrap();
            assert!(
                acknowledged <= number && number <= begun,
                "client {client}: {acknowledged} acknowledged before the freeze, {number} there, {begun} \
                 begun"
            );
        }
        self.holes(restored).unwrap();
    }

    /// What is not whole: gaps in the history, the sum, balances, pages, indexes.
    pub fn holes(&self, restored: &Cluster) -> Result<(), String> {
        let none = |what: &str, sql: &str| {
            let found = restored.try_sql(sql)?.remove(0).remove(0);
            if found == "0" { Ok(()) } else { Err(format!("{what}: {found}")) }
        };
        none(
            "transfers missing in between",
            "SELECT coalesce(sum(n), 0) FROM (SELECT max(number) - count(*) n FROM history GROUP BY client) c",
        )?;
        none("what the sum is off", &format!("SELECT sum(balance) - {ACCOUNTS} * {BALANCE} FROM account"))?;
        none(
            "balances that are not what the history says",
            &format!(
                "SELECT count(*) FROM account a WHERE balance <> {BALANCE} \
                 - (SELECT coalesce(sum(amount), 0) FROM history WHERE source = a.id) \
                 + (SELECT coalesce(sum(amount), 0) FROM history WHERE target = a.id)"
            ),
        )?;
        let amcheck = program("pg_amcheck");
        if !amcheck.exists() {
            // Version 13: indexes only.
            let indexes = "SELECT bt_index_check(c.oid, true) FROM pg_class c WHERE relam = (SELECT oid \
                FROM pg_am WHERE amname = 'btree')";
            restored.try_sql("CREATE EXTENSION amcheck")?;
            return restored.try_sql(indexes).map(drop);
        }
        let output = as_postgres(&amcheck)
            .args(["--all", "--install-missing", "--heapallindexed", "-U", POSTGRES, "-h"])
            .arg(&restored.run)
            .output()
            .unwrap();
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() {
            Ok(())
        } else {
            Err(format!("pg_amcheck: {}{}", said(&output.stdout), said(&output.stderr)))
        }
    }
}
