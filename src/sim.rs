//! A pair of simulated PostgreSQL servers that speak the wire: for the demo where PostgreSQL is not installed, and for
//! tests that need no disk. One table in memory, replication with a settable lag, crashes, promotion, timelines.
//!
//! It answers `psql`, drivers that use the extended protocol, and everything that pgpivot itself asks; whatever else
//! it is asked it refuses with 0A000 and a sentence. It proves nothing about PostgreSQL.
//!
//! `SELECT sim_crash()` crashes the server that it is sent to, `SELECT sim_revive()` starts the other one as it was,
//! `SELECT sim_rebuild()` starts the other one as a standby of this one.

mod backend;
pub mod cloud;
mod cloud_api;
mod cockroach;
mod connection;
mod conversation;
mod database;
mod eval;
mod extended;
mod fault;
mod functions;
mod lexer;
mod message;
mod model;
mod own;
mod postgres;
mod sql;
mod statement;
mod value;

pub use backend::Pair;
pub use cloud::Cloud;
pub use model::Side;

use crate::types::WallTime;

/// What it claims to be.
const SERVER_VERSION: &str = "15.0 (pgpivot simulation)";

fn now() -> WallTime {
    WallTime(jiff::Timestamp::now().as_microsecond())
}

/// The pair as its users see it: a driver, `psql`, and pgpivot's own probes.
#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use tokio::net::TcpStream;
    use tokio::time::Instant;
    use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

    use super::{Pair, Side};
    use crate::config::env::Env;
    use crate::config::{Backend, Login, Tls, TlsMode, raw, validate};
    use crate::failover::action::{Latched, LockResult, PromotionResult};
    use crate::net::session::{Session, Target};
    use crate::net::tls::ClientTls;
    use crate::probe::PROBE_SQL;
    use crate::promote::Effects;
    use crate::types::{Epoch, SystemId, Timeline};

    async fn pair() -> Pair {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Pair::start([any, any]).await.unwrap()
    }

    async fn connect(pair: &Pair, side: Side) -> Client {
        let address = pair.address(side);
        let text = format!("host={} port={} user=app dbname=shop application_name=tests", address.ip(), address.port());
        let (client, connection) = tokio_postgres::connect(&text, NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    fn deadline() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    /// A session as the probe has it.
    async fn probe(pair: &Pair, side: Side, replication: bool) -> Session {
        let tls = Tls { mode: TlsMode::Prefer, ca_file: None, server_name: None };
        let target = Target {
            address: pair.address(side),
            server_name: "localhost".into(),
            tls: ClientTls::build(&tls).unwrap(),
            login: Login { user: "pgpivot".into(), database: "postgres".into(), password: None },
            application_name: "pgpivot/here/main/1".into(),
            replication,
        };
        let options = [("options", "-c default_transaction_read_only=on -c search_path=pg_catalog -c jit=off")];
        Session::connect_with(&target, &options, deadline()).await.unwrap()
    }

    async fn facts(session: &mut Session) -> Vec<Option<String>> {
        session.query(PROBE_SQL, deadline()).await.unwrap().remove(0)
    }

    fn code(error: &tokio_postgres::Error) -> &str {
        error.code().map_or("none", |code| code.code())
    }

    #[tokio::test]
    async fn a_driver_writes_on_the_primary_and_reads_on_the_standby() {
        let pair = pair().await;
        let mut east = connect(&pair, Side::East).await;
        let insert = east.prepare("INSERT INTO commits (id) VALUES ($1) RETURNING id, at").await.unwrap();
        for id in 1..=3_i64 {
            assert_eq!(east.query_one(&insert, &[&id]).await.unwrap().get::<_, i64>(0), id);
        }
        let block = east.transaction().await.unwrap();
        block.execute("INSERT INTO commits (id) VALUES ($1), ($2)", &[&4_i64, &5_i64]).await.unwrap();
        let inside: i64 = block.query_one("SELECT count(*) FROM commits", &[]).await.unwrap().get(0);
        assert_eq!(inside, 5);
        assert_eq!(pair.ids(Side::West), [1, 2, 3], "not before the commit");
        block.commit().await.unwrap();

        let west = connect(&pair, Side::West).await;
        let rows =
            west.query("SELECT id FROM commits WHERE id >= $1 ORDER BY id DESC LIMIT 2", &[&2_i64]).await.unwrap();
        assert_eq!(rows.iter().map(|row| row.get(0)).collect::<Vec<i64>>(), [5, 4]);
        let row = west.query_one("SELECT 1, 'x' AS text, pg_is_in_recovery(), max(id) FROM commits", &[]).await;
        assert_eq!(code(&row.unwrap_err()), "0A000");
        let row = west.query_one("SELECT 1, 'x' AS text, pg_is_in_recovery(), now()", &[]).await.unwrap();
        assert_eq!((row.get::<_, i32>(0), row.get::<_, &str>("text"), row.get::<_, bool>(2)), (1, "x", true));
        let age = row.get::<_, std::time::SystemTime>(3).elapsed().unwrap_or_default();
        assert!(age < Duration::from_secs(20));
        let refused = west.execute("INSERT INTO commits (id) VALUES (9)", &[]).await.unwrap_err();
        assert_eq!(code(&refused), "25006");
    }

    #[tokio::test]
    async fn transactions_fail_and_roll_back_as_they_should() {
        let pair = pair().await;
        let east = connect(&pair, Side::East).await;
        east.batch_execute("INSERT INTO commits (id) VALUES (1); BEGIN; INSERT INTO commits (id) VALUES (2)")
            .await
            .unwrap();
        let twice = east.batch_execute("INSERT INTO commits (id) VALUES (2)").await.unwrap_err();
        assert_eq!(code(&twice), "23505");
        assert_eq!(code(&east.batch_execute("SELECT 1").await.unwrap_err()), "25P02");
        east.batch_execute("COMMIT").await.unwrap();
        assert_eq!(pair.ids(Side::East), [1], "a failed block is rolled back");
        east.batch_execute("BEGIN; INSERT INTO commits VALUES (3); ROLLBACK").await.unwrap();
        east.batch_execute("INSERT INTO commits (id) VALUES (1), (4) ON CONFLICT DO NOTHING").await.unwrap();
        assert_eq!(pair.ids(Side::East), [1, 4]);
        let unknown = east.batch_execute("CREATE TABLE x (y int)").await.unwrap_err();
        assert_eq!(code(&unknown), "0A000");
        let sentence = unknown.as_db_error().unwrap().message().to_owned();
        assert!(sentence.contains("simulated server"), "{sentence}");
        assert_eq!(code(&east.query("SELECT * FROM users", &[]).await.unwrap_err()), "42P01");
    }

    #[tokio::test]
    async fn a_portal_gives_its_rows_in_pieces() {
        let pair = pair().await;
        let mut east = connect(&pair, Side::East).await;
        east.batch_execute("INSERT INTO commits (id) VALUES (1), (2), (3)").await.unwrap();
        let block = east.transaction().await.unwrap();
        let portal = block.bind("SELECT id FROM commits ORDER BY id", &[]).await.unwrap();
        assert_eq!(block.query_portal(&portal, 2).await.unwrap().len(), 2);
        assert_eq!(block.query_portal(&portal, 2).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_killed_server_resets_its_clients_and_refuses_new_ones_until_it_is_revived() {
        let pair = pair().await;
        let east = connect(&pair, Side::East).await;
        east.batch_execute("INSERT INTO commits (id) VALUES (1)").await.unwrap();
        pair.kill(Side::East).await;
        assert!(east.batch_execute("SELECT 1").await.is_err());
        let refused = TcpStream::connect(pair.address(Side::East)).await.unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        assert!(!pair.promote(Side::East), "it is down");
        assert!(pair.promote(Side::West));
        assert!(pair.is_primary(Side::West) && !pair.is_primary(Side::East));

        pair.revive(Side::East).await.unwrap();
        let again = connect(&pair, Side::East).await;
        again.batch_execute("INSERT INTO commits (id) VALUES (2)").await.unwrap();
        assert!(pair.is_primary(Side::East), "as it was: two primaries, as in life");
        assert_eq!(pair.ids(Side::West), [1], "and the new one hears nothing of it");

        assert!(pair.rebuild(Side::East).await.unwrap());
        assert_eq!(pair.ids(Side::East), [1]);
        let west = connect(&pair, Side::West).await;
        west.batch_execute("INSERT INTO commits (id) VALUES (3)").await.unwrap();
        assert_eq!(pair.ids(Side::East), [1, 3]);
    }

    #[tokio::test]
    async fn a_demo_can_be_steered_by_sql_alone() {
        let pair = pair().await;
        let west = connect(&pair, Side::West).await;
        connect(&pair, Side::East).await.batch_execute("SELECT sim_crash()").await.unwrap();
        while TcpStream::connect(pair.address(Side::East)).await.is_ok() {
            tokio::task::yield_now().await;
        }
        west.batch_execute("SELECT pg_promote(wait => false)").await.unwrap();
        assert_eq!(code(&west.batch_execute("SELECT pg_promote()").await.unwrap_err()), "55000");
        west.batch_execute("INSERT INTO commits (id) VALUES (7); SELECT sim_rebuild()").await.unwrap();
        while TcpStream::connect(pair.address(Side::East)).await.is_err() {
            tokio::task::yield_now().await;
        }
        assert!(!pair.is_primary(Side::East));
        assert_eq!(pair.ids(Side::East), [7]);
    }

    #[tokio::test]
    async fn the_probe_learns_of_a_simulated_pair_what_it_learns_of_a_real_one() {
        let pair = pair().await;
        let (mut east, mut west) = (probe(&pair, Side::East, false).await, probe(&pair, Side::West, false).await);
        let primary = facts(&mut east).await;
        let text = |row: &[Option<String>], n: usize| row[n].clone().unwrap_or_else(|| "NULL".into());
        assert_eq!(primary.len(), 23);
        assert_eq!((text(&primary, 0).as_str(), text(&primary, 2).as_str()), ("f", "00000001"));
        assert_eq!(text(&primary, 5), pair.address(Side::East).to_string());
        assert_eq!((text(&primary, 8), text(&primary, 19)), ("NULL".into(), "west".into()));
        let standby = facts(&mut west).await;
        assert_eq!(
            (text(&standby, 0), text(&standby, 8), text(&standby, 9)),
            ("t".into(), "streaming".into(), "1".into())
        );
        assert_eq!(text(&standby, 1), text(&primary, 1), "one system identifier");
        assert_eq!(text(&standby, 3), text(&primary, 3), "no lag");
        assert_eq!(text(&standby, 13), pair.address(Side::East).to_string());
        assert_eq!((text(&standby, 14), text(&standby, 15)), ("3000".into(), "t".into()));

        pair.kill(Side::East).await;
        let alone = facts(&mut west).await;
        assert_eq!((text(&alone, 7), text(&alone, 8)), ("0".into(), "NULL".into()), "the receiver is gone");
        assert_eq!(
            west.query("SELECT pg_promote(wait => false)", deadline()).await.unwrap()[0][0].as_deref(),
            Some("t")
        );
        let promoted = facts(&mut west).await;
        assert_eq!((text(&promoted, 0), text(&promoted, 2)), ("f".into(), "00000002".into()));

        let mut replication = probe(&pair, Side::West, true).await;
        let identity = replication.query("IDENTIFY_SYSTEM", deadline()).await.unwrap();
        assert_eq!((identity[0][0].clone(), identity[0][1].as_deref()), (promoted[1].clone(), Some("2")));
        let history = replication.query("TIMELINE_HISTORY 2", deadline()).await.unwrap();
        assert_eq!(history[0][0].as_deref(), Some("00000002.history"));
        assert!(text(&history[0], 1).starts_with(&format!("1\t{}\t", text(&alone, 3))), "{history:?}");
    }

    #[tokio::test]
    async fn the_probes_of_two_daemons_see_each_other() {
        let pair = pair().await;
        let mut mine = probe(&pair, Side::East, false).await;
        assert_eq!(facts(&mut mine).await[20], None);
        let mut other = probe(&pair, Side::East, false).await;
        let rename = "SET application_name = 'pgpivot/there/main/2';";
        assert_eq!(
            other.query(&format!("{rename}{PROBE_SQL}"), deadline()).await.unwrap()[0][20].as_deref(),
            Some("pgpivot/here/main/1")
        );
        assert_eq!(facts(&mut mine).await[20].as_deref(), Some("pgpivot/there/main/2"));
    }

    /// The promoter's hands on a pair, configured as an operator would.
    fn effects(pair: &Pair) -> (Effects, Vec<Backend>) {
        let (east, west) = (pair.address(Side::East), pair.address(Side::West));
        let text = format!(
            "[service.main]\nkind = \"postgres\"\n\
             [[service.main.backend]]\nname = \"east\"\naddresses = [\"{east}\"]\n\
             [[service.main.backend]]\nname = \"west\"\naddresses = [\"{west}\"]\n\
             [service.main.probe]\nkind = \"sql\"\nuser = \"pgpivot\"\n\
             [service.main.failover]\nautomatic = true\npromoter = \"postgres\"\n"
        );
        let (config, _) = validate::build(raw::parse(&text), &Env::default(), 1).unwrap();
        let service = config.services.first().unwrap();
        (Effects::build(service, "here"), service.backends.clone())
    }

    #[tokio::test]
    async fn a_simulated_pair_is_locked_frozen_and_promoted_as_a_real_one_is() {
        let pair = pair().await;
        let (effects, backends) = effects(&pair);
        let (other_daemon, _) = self::effects(&pair);
        let [east, west] = Side::BOTH.map(|side| (backends[side as usize].name.clone(), pair.address(side)));
        let app = connect(&pair, Side::East).await;
        app.batch_execute("INSERT INTO commits (id) VALUES (1)").await.unwrap();

        let shown = facts(&mut probe(&pair, Side::East, false).await).await;
        let latched = Latched {
            system_id: SystemId(shown[1].as_deref().unwrap().parse().unwrap()),
            timeline: Timeline(1),
            node: shown[5].clone(),
        };
        let stranger = Latched { timeline: Timeline(2), ..latched.clone() };
        effects.freeze(&east.0, east.1, Some(&stranger)).await.unwrap_err();
        app.batch_execute("SELECT 1").await.unwrap();
        let lsn = effects.freeze(&east.0, east.1, Some(&latched)).await.unwrap();
        assert!(app.batch_execute("SELECT 1").await.is_err(), "clients are ended");
        let late = connect(&pair, Side::East).await;
        assert_eq!(code(&late.batch_execute("INSERT INTO commits (id) VALUES (2)").await.unwrap_err()), "25006");
        assert_eq!(effects.read_flush(&east.0, east.1, Some(&latched)).await, Ok(lsn));
        effects.unfreeze(&east.0, east.1, Some(&latched)).await.unwrap();
        let late = connect(&pair, Side::East).await;
        late.batch_execute("INSERT INTO commits (id) VALUES (2)").await.unwrap();

        let (result, guard) = effects.lock(std::slice::from_ref(&west), 1).await;
        assert_eq!(result, LockResult::Held);
        let (result, _) = other_daemon.lock(std::slice::from_ref(&west), 1).await;
        assert_eq!(result, LockResult::Busy);
        pair.kill(Side::East).await;
        let promoted = effects.promote(&backends[1], west.1, Epoch(2), None).await;
        assert_eq!(promoted, PromotionResult::Done);
        assert!(pair.is_primary(Side::West) && guard.is_some_and(|mut guard| guard.is_held()));
        assert_eq!(effects.promote(&backends[1], west.1, Epoch(2), None).await, PromotionResult::Done, "again");
        effects.set_sync(&west.0, west.1, "").await.unwrap();
        assert_eq!(pair.ids(Side::West), [1, 2]);
    }

    #[tokio::test]
    async fn an_advisory_lock_belongs_to_one_session_and_goes_with_it() {
        let pair = pair().await;
        let (one, two) = (connect(&pair, Side::West).await, connect(&pair, Side::West).await);
        let lock = "SELECT pg_try_advisory_lock(5)";
        assert!(one.query_one(lock, &[]).await.unwrap().get::<_, bool>(0));
        assert!(!two.query_one(lock, &[]).await.unwrap().get::<_, bool>(0));
        drop(one);
        while !two.query_one(lock, &[]).await.unwrap().get::<_, bool>(0) {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_lagging_standby_loses_what_it_had_not_received() {
        let pair = pair().await;
        let east = connect(&pair, Side::East).await;
        east.batch_execute("INSERT INTO commits (id) VALUES (1)").await.unwrap();
        assert_eq!(pair.ids(Side::West), [1]);
        pair.set_lag(Duration::from_secs(3600));
        east.batch_execute("INSERT INTO commits (id) VALUES (2)").await.unwrap();
        pair.kill(Side::East).await;
        pair.promote(Side::West);
        assert_eq!(pair.ids(Side::West), [1]);
    }

    #[tokio::test]
    async fn psql_can_talk_to_it() {
        let pair = pair().await;
        let address = pair.address(Side::East);
        let commands = "INSERT INTO commits (id) VALUES (1), (2);\nSELECT count(*) FROM commits;\n\
                        SELECT nonsense;\nSHOW transaction_read_only;\n";
        let mut psql = tokio::process::Command::new("psql")
            .args([&format!("postgresql://demo@{address}/demo"), "-X", "-A", "-t", "-f", "-"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .expect("psql is needed: apt-get install postgresql-client");
        let mut input = psql.stdin.take().unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut input, commands.as_bytes()).await.unwrap();
        drop(input);
        let output = psql.wait_with_output().await.unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(out.lines().collect::<Vec<_>>(), ["INSERT 0 2", "2", "off"], "{err}");
        assert!(err.contains("column \"nonsense\" does not exist"), "{err}");
    }

    #[tokio::test]
    async fn a_server_has_room_for_a_hundred_sessions() {
        let pair = pair().await;
        let mut clients = Vec::new();
        for _ in 0..100 {
            clients.push(connect(&pair, Side::East).await);
        }
        assert_eq!(pair.sessions(Side::East), 100);
        let address = pair.address(Side::East);
        let text = format!("host={} port={} user=app", address.ip(), address.port());
        let Err(full) = tokio_postgres::connect(&text, NoTls).await else { panic!("a hundred and one") };
        assert_eq!(code(&full), "53300");
        let messages = clients[0].simple_query("SELECT 1").await.unwrap();
        assert!(messages.iter().any(|message| matches!(message, SimpleQueryMessage::Row(_))));
    }
}
