//! What statements do on a virtual cluster: `main` has the table, `system` steers `main`. Waiting statements wait here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::super::cloud::refusal::Refusal;
use super::super::cloud::replication::{Halt, Phase, Stream};
use super::super::cloud::site::Site;
use super::super::cloud::world::World;
use super::super::database::{Database, Dialect, Host};
use super::super::eval::{Answer, Context, Session, done};
use super::super::fault::Fault;
use super::super::statement::Statement as Sql;
use super::super::value::{Type, Value};
use super::sql::{Pick, Statement};
use super::{MAIN, SERVER_VERSION, SYSTEM, version_text};
use crate::types::WallTime;

/// Between two looks at a job that is waited for.
const LOOK: Duration = Duration::from_millis(5);
/// Rows of a virtual cluster without a table.
static NO_ROWS: BTreeMap<i64, WallTime> = BTreeMap::new();

/// A client's place at a virtual cluster.
#[derive(Debug)]
pub(super) struct Tenant {
    pub(super) site: Arc<Site>,
    pub(super) cluster: usize,
    pub(super) system: bool,
}

/// A virtual cluster, held still for one statement.
struct Server<'a> {
    world: &'a mut World,
    cluster: usize,
    system: bool,
    version: &'a str,
    /// The world is not as it was.
    changed: bool,
}

impl Host for Tenant {
    fn dialect(&self) -> Dialect {
        if self.system { Dialect::CockroachSystem } else { Dialect::Cockroach }
    }

    fn context<T>(&self, session: &mut Session, run: impl FnOnce(&mut Context<'_>) -> T) -> T {
        let (mut world, now) = self.site.world_now();
        let (cluster, system, version) = (self.cluster, self.system, self.site.version.as_str());
        let mut server = Server { world: &mut world, cluster, system, version, changed: false };
        let result = run(&mut Context { server: &mut server, session, now });
        let changed = server.changed;
        drop(world);
        if changed {
            self.site.changed();
        }
        result
    }

    async fn wait(&self, statement: &Sql) {
        match statement {
            Sql::Cockroach(Statement::StopService(_)) => {
                let mut changes = self.site.changes();
                while self.site.gates[self.cluster].state().stop_hangs {
                    if changes.changed().await.is_err() {
                        return;
                    }
                }
            }
            Sql::Cockroach(Statement::ShowJob { id, when_complete: true }) => {
                while self.is_running(*id) {
                    sleep(LOOK).await;
                }
            }
            _ => {}
        }
    }

    fn has_effect(&self) -> bool {
        false
    }

    fn carry_out(&self) {}
}

impl Tenant {
    fn is_running(&self, job: i64) -> bool {
        let (world, _) = self.site.world_now();
        let stream = world.streams.iter().find(|stream| stream.job == job && stream.standby == self.cluster);
        stream.is_some_and(|stream| matches!(job_status(stream), "running" | "pause-requested"))
    }
}

impl Database for Server<'_> {
    fn rows(&self) -> &BTreeMap<i64, WallTime> {
        if self.system { &NO_ROWS } else { &self.world.clusters[self.cluster].rows }
    }

    fn commit(&mut self, ids: Vec<i64>, now: WallTime) -> Result<(), Fault> {
        let reachable = self.world.clusters[self.cluster].is_up();
        if self.system || !reachable || !self.world.serves(self.cluster) {
            return Err(Fault::NotServed);
        }
        self.world.clusters[self.cluster].rows.extend(ids.into_iter().map(|id| (id, now)));
        Ok(())
    }

    fn setting(&self, name: &str) -> Option<String> {
        let value = match name {
            "bytea_output" => "hex",
            "client_min_messages" => "notice",
            "crdb_version" => return Some(version_text(self.version)),
            "database" => "defaultdb",
            "default_transaction_isolation" | "transaction_isolation" => "serializable",
            "max_connections" => "-1",
            "row_security" => "off",
            "results_buffer_size" => "524288",
            "server_version" => SERVER_VERSION,
            "server_version_num" => "130000",
            _ => return None,
        };
        Some(value.to_owned())
    }

    fn is_standby(&self) -> bool {
        false
    }

    fn rename(&mut self, _: &Session) {}

    fn call(&mut self, name: &str, arguments: &[Value], _: &Session, now: WallTime) -> Result<Value, Fault> {
        let address = self.world.clusters[self.cluster].address;
        Ok(match name {
            "version" => Value::Text(version_text(self.version)),
            "cluster_id" => Value::Text(self.world.clusters[self.cluster].sql_id.clone()),
            "node_id" => Value::Int(1),
            "cluster_logical_timestamp" => Value::Text(hlc(now)),
            "pg_is_in_recovery" => Value::Bool(false),
            "inet_server_addr" => Value::Text(address.ip().to_string()),
            "inet_server_port" => Value::Int(address.port().into()),
            "has_function_privilege" | "pg_has_role" => Value::Bool(!arguments.is_empty()),
            _ => return Err(Fault::NotSupported(format!("{name}()"))),
        })
    }

    fn perform(&mut self, statement: &Sql, session: &mut Session, now: WallTime) -> Result<Answer, Fault> {
        match statement {
            Sql::Cockroach(statement) if session.status() != b'I' && statement.stands_alone() => {
                Err(Fault::NotSupported("this statement inside of a transaction".into()))
            }
            Sql::Cockroach(statement) => self.steer(statement, now),
            _ => Err(Fault::NotSupported("a statement of PostgreSQL's".into())),
        }
    }
}

impl Server<'_> {
    fn steer(&mut self, statement: &Statement, now: WallTime) -> Result<Answer, Fault> {
        let cluster = self.cluster;
        let revoked = &self.world.clusters[cluster].revoked;
        if let Some(privilege) = statement.privilege().filter(|needed| revoked.iter().any(|gone| gone == needed)) {
            // A login without VIEWJOB sees its own jobs, and these are others'.
            return match statement {
                Statement::ShowJobs => Ok(table(Vec::new(), "SHOW")),
                _ => Err(Fault::NotGranted(privilege)),
            };
        }
        self.changed = true;
        match statement {
            Statement::CreateTable => done("CREATE TABLE"),
            Statement::CreateReplica { name, source, uri } => {
                self.is_main(name)?;
                self.is_main(source)?;
                self.world.create_replica(cluster, uri, now)?;
                done("CREATE VIRTUAL CLUSTER FROM REPLICATION")
            }
            Statement::StartReplication { name, source, uri } => {
                self.is_main(name)?;
                self.is_main(source)?;
                self.world.start_replication(cluster, uri, now)?;
                done("ALTER VIRTUAL CLUSTER REPLICATION")
            }
            Statement::Drop { name, if_exists } => {
                match self.is_main(name).and_then(|()| Ok(self.world.drop_main(cluster, now)?)) {
                    Err(Fault::Refused(Refusal::NoCluster(_))) if *if_exists => {}
                    result => result?,
                }
                done("DROP VIRTUAL CLUSTER")
            }
            Statement::Complete { name, to } => self.complete(name, to.as_deref(), now),
            Statement::Pause(name) => {
                self.is_main(name)?;
                self.world.halt(cluster, Halt::Paused)?;
                done("ALTER VIRTUAL CLUSTER REPLICATION")
            }
            Statement::Resume(name) => {
                self.is_main(name)?;
                self.world.halt(cluster, Halt::None)?;
                done("ALTER VIRTUAL CLUSTER REPLICATION")
            }
            Statement::StartService(name) | Statement::StopService(name) => {
                self.is_main(name)?;
                self.world.serve(cluster, matches!(statement, Statement::StartService(_)))?;
                done("ALTER VIRTUAL CLUSTER SERVICE")
            }
            Statement::Pick(pick) => self.pick(pick, now),
            Statement::ShowClusters(name) => self.clusters(name.as_deref()),
            Statement::ShowReplication(name) => self.replication(name, now),
            Statement::ShowJobs => Ok(self.jobs(|_| true)),
            Statement::ShowJob { id, .. } => {
                let answer = self.jobs(|stream| stream.job == *id);
                match answer.rows.is_empty() {
                    true => Err(Refusal::NoJob(*id).into()),
                    false => Ok(answer),
                }
            }
            Statement::ShowSetting(name) => {
                let value = self.cluster_setting(name).ok_or_else(|| Fault::NoSetting(name.clone()))?;
                Ok(table(vec![vec![Value::Text(value)]], "SHOW"))
            }
            Statement::SetSetting { name, value } => {
                self.cluster_setting(name).ok_or_else(|| Fault::NoSetting(name.clone()))?;
                let settings = &mut self.world.clusters[cluster].settings;
                match value {
                    Some(value) => settings.insert(name.clone(), value.clone()),
                    None => settings.remove(name),
                };
                done("SET CLUSTER SETTING")
            }
        }
    }

    fn pick(&mut self, pick: &Pick, now: WallTime) -> Result<Answer, Fault> {
        let all = pick.from.columns().unwrap_or_default();
        let place = |name: &String| all.iter().position(|column| column.name == *name);
        let place = |name: &String| place(name).ok_or_else(|| Fault::NoColumn(name.clone()));
        let filters = pick.filters.iter().map(|(name, value)| Ok((place(name)?, value)));
        let filters = filters.collect::<Result<Vec<_>, Fault>>()?;
        let columns = pick.columns.iter().map(place).collect::<Result<Vec<_>, _>>()?;
        let mut rows = self.steer(&pick.from, now)?.rows;
        rows.retain(|row| filters.iter().all(|(n, value)| row[*n].to_text().as_ref() == Some(*value)));
        if let Some((name, descending)) = &pick.order {
            let by = place(name)?;
            rows.sort_by_key(|row| row[by].to_text());
            if *descending {
                rows.reverse();
            }
        }
        rows.truncate(pick.limit.unwrap_or(usize::MAX));
        if !columns.is_empty() {
            rows = rows.into_iter().map(|row| columns.iter().map(|n| row[*n].clone()).collect()).collect();
        }
        Ok(table(rows, "SELECT"))
    }

    fn complete(&mut self, name: &str, to: Option<&str>, now: WallTime) -> Result<Answer, Fault> {
        self.is_main(name)?;
        let to = to.map(|text| system_time(text, now).ok_or_else(|| Fault::BadValue(text.to_owned())));
        let to = to.transpose()?;
        let stream = self.world.inbound(self.cluster);
        let id = stream.map(|stream| stream.id.clone());
        let id = id.ok_or_else(|| Refusal::NotReplicating(name.to_owned()))?;
        let to = self.world.fail_over(&id, to, now)?;
        Ok(table(vec![vec![Value::Text(hlc(to))]], "ALTER VIRTUAL CLUSTER REPLICATION"))
    }

    fn clusters(&self, name: Option<&str>) -> Result<Answer, Fault> {
        let text = |text: &str| Value::Text(text.to_owned());
        let system = vec![Value::Int(1), text(SYSTEM), text("ready"), text("shared")];
        let main = self.world.service(self.cluster);
        let main = main.map(|(state, mode)| vec![Value::Int(3), text(MAIN), text(state), text(mode)]);
        let wanted = |row: &Vec<Value>| name.is_none_or(|name| row[1] == text(name));
        let rows: Vec<_> = [Some(system), main].into_iter().flatten().filter(wanted).collect();
        match (name, rows.is_empty()) {
            (Some(name), true) => Err(Refusal::NoCluster(name.to_owned()).into()),
            _ => Ok(table(rows, "SHOW")),
        }
    }

    fn replication(&self, name: &str, now: WallTime) -> Result<Answer, Fault> {
        self.is_main(name)?;
        let (state, _) = self.world.service(self.cluster).ok_or_else(|| no_cluster(name))?;
        let text = |text: &str| Value::Text(text.to_owned());
        let time = |at: Option<WallTime>| at.map_or(Value::Null, Value::Time);
        let mut row = vec![Value::Int(3), text(MAIN)];
        match self.world.last_inbound(self.cluster) {
            // A cluster that never was a standby, or serves again, has nothing to show but its state.
            Some(stream) if stream.is_open() || !self.world.serves(self.cluster) => {
                let failover = match (&stream.phase, stream.failover_time()) {
                    (Phase::Completed { to, .. }, _) => text(&hlc(*to)),
                    (_, Some((to, _))) => text(&hlc(to)),
                    _ => Value::Null,
                };
                let lag = stream.replicated.map_or(Value::Null, |at| Value::Interval(now.0 - at.0));
                row.extend([text(MAIN), text(&stream.uri), time(stream.replicated.map(|_| stream.retained))]);
                row.extend([time(stream.replicated), lag, failover]);
            }
            _ => row.extend([text(""), text(""), Value::Null, Value::Null, Value::Null, Value::Null]),
        }
        row.push(text(state));
        Ok(table(vec![row], "SHOW"))
    }

    fn jobs(&self, wanted: impl Fn(&Stream) -> bool) -> Answer {
        let text = |text: &str| Value::Text(text.to_owned());
        let streams = self.world.streams.iter().filter(|stream| stream.standby == self.cluster && wanted(stream));
        let rows = streams.map(|stream| {
            let finished = match stream.phase {
                Phase::Completed { at, .. } | Phase::Canceled { at } | Phase::Failed { at } => Value::Time(at),
                _ => Value::Null,
            };
            let status = job_status(stream);
            let error =
                if matches!(status, "failed" | "paused") { "replication stream: simulated failure" } else { "" };
            let fraction = if status == "succeeded" { "1" } else { "0" };
            vec![
                Value::Int(stream.job),
                text("REPLICATION STREAM INGESTION"),
                Value::Text(format!("CREATE VIRTUAL CLUSTER main FROM REPLICATION OF main ON '{}'", stream.uri)),
                text(status),
                text(stream.data_state()),
                Value::Time(stream.created),
                finished,
                text(fraction),
                text(error),
            ]
        });
        let rows = rows.collect();
        table(rows, "SHOW")
    }

    fn cluster_setting(&self, name: &str) -> Option<String> {
        let default = match name {
            "server.controller.default_target_cluster" => MAIN,
            "server.time_until_store_dead" => "00:05:00",
            "server.time_after_store_suspect" => "00:00:30",
            "server.shutdown.initial_wait" | "server.shutdown.connections.timeout" => "00:00:00",
            "server.shutdown.transactions.timeout" => "00:00:10",
            "server.controller.mux_virtual_cluster_wait.timeout" => "00:00:10",
            "kv.rangefeed.enabled" => "true",
            "version" => self.version,
            _ => return None,
        };
        let set = self.world.clusters[self.cluster].settings.get(name).cloned();
        Some(set.unwrap_or_else(|| default.to_owned()))
    }

    /// There is one virtual cluster to steer.
    fn is_main(&self, name: &str) -> Result<(), Fault> {
        if name == MAIN { Ok(()) } else { Err(no_cluster(name)) }
    }
}

/// The word of SHOW JOBS.
fn job_status(stream: &Stream) -> &'static str {
    match (&stream.phase, stream.halt) {
        (Phase::Completed { .. }, _) => "succeeded",
        (Phase::Canceled { .. }, _) => "canceled",
        (Phase::Failed { .. }, _) => "failed",
        (_, Halt::Paused | Halt::Broken) => "paused",
        _ => "running",
    }
}

fn no_cluster(name: &str) -> Fault {
    Refusal::NoCluster(name.to_owned()).into()
}

fn table(rows: Vec<Vec<Value>>, verb: &str) -> Answer {
    Answer { tag: format!("{verb} {}", rows.len()), rows }
}

/// A time as CockroachDB's clock has it: nanoseconds and a logical part.
fn hlc(at: WallTime) -> String {
    format!("{}.0000000000", i128::from(at.0) * 1_000)
}

/// What `SYSTEM TIME` may be given: a timestamp, a decimal of `cluster_logical_timestamp()`, `-30s`.
fn system_time(text: &str, now: WallTime) -> Option<WallTime> {
    let micros = |text: &str| humantime::parse_duration(text).ok().and_then(|d| i64::try_from(d.as_micros()).ok());
    if let Some(back) = text.strip_prefix('-') {
        return Some(WallTime(now.0.saturating_sub(micros(back)?)));
    }
    if let Some(ahead) = text.strip_prefix('+') {
        return Some(WallTime(now.0.saturating_add(micros(ahead)?)));
    }
    let whole = text.split('.').next().unwrap_or_default();
    if let Ok(nanos) = whole.parse::<i64>() {
        return Some(WallTime(nanos / 1_000));
    }
    let zoned = text.ends_with('Z') || text.rsplit(' ').next().unwrap_or_default().contains(['+']);
    let spelt = if zoned { text.to_owned() } else { format!("{text}Z") };
    match Value::parse(&spelt, Type::Time) {
        Some(Value::Time(at)) => Some(at),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_time_is_understood_in_every_form_that_cockroachdb_prints() {
        let now = WallTime(1_700_000_000_000_000);
        for text in [
            "1700000000000000000.0000000000",
            "1700000000000000000",
            "2023-11-14 22:13:20+00",
            "2023-11-14T22:13:20Z",
            "2023-11-14 22:13:20",
            "2023-11-14 22:13:20.000000+00:00",
        ] {
            assert_eq!(system_time(text, WallTime(0)), Some(now), "{text}");
        }
        assert_eq!(system_time("-10s", now), Some(WallTime(now.0 - 10_000_000)));
        assert_eq!(system_time("soon", now), None);
        assert_eq!(hlc(now), "1700000000000000000.0000000000");
    }
}
