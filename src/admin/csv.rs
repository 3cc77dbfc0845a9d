//! `GET /stats;csv`: the table HAProxy 2.x prints, so that its exporters read it. A service is a proxy with one
//! FRONTEND, one row per listener (as `option socket-stats` gives), one per backend, and one BACKEND.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::health::{is_healthy, standbys};
use super::server::Shared;
use crate::types::WallTime;
use crate::view::{BackendStatus, Counters, ListenerStatus, ServiceStatus, Status};

/// HAProxy's columns in HAProxy's order.
const COLUMNS: &str = "pxname,svname,qcur,qmax,scur,smax,slim,stot,bin,bout,dreq,dresp,ereq,econ,eresp,wretr,wredis,\
status,weight,act,bck,chkfail,chkdown,lastchg,downtime,qlimit,pid,iid,sid,throttle,lbtot,tracked,type,rate,rate_lim,\
rate_max,check_status,check_code,check_duration,hrsp_1xx,hrsp_2xx,hrsp_3xx,hrsp_4xx,hrsp_5xx,hrsp_other,hanafail,\
req_rate,req_rate_max,req_tot,cli_abrt,srv_abrt,comp_in,comp_out,comp_byp,comp_rsp,lastsess,last_chk,last_agt,qtime,\
ctime,rtime,ttime,agent_status,agent_code,agent_duration,check_desc,agent_desc,check_rise,check_fall,check_health,\
agent_rise,agent_fall,agent_health,addr,cookie,mode,algo,conn_rate,conn_rate_max,conn_tot,intercepted,dcon,dses,wrew,\
connect,reuse,cache_lookups,cache_hits,srv_icur,src_ilim,qtime_max,ctime_max,rtime_max,ttime_max,eint,idle_conn_cur,\
safe_conn_cur,used_conn_cur,need_conn_est,uweight,agg_server_status,agg_server_check_status,agg_check_status";

const FRONTEND: u64 = 0;
const BACKEND: u64 = 1;
const SERVER: u64 = 2;
const SOCKET: u64 = 3;

/// `GET /stats;csv`.
pub(super) async fn table(State(shared): State<Arc<Shared>>) -> Response {
    let text = render(&shared.state.status.load());
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
}

/// The whole table; every line ends with a comma, as HAProxy's do.
pub(super) fn render(status: &Status) -> String {
    let mut text = format!("# {COLUMNS},\n");
    for (number, service) in (1..).zip(&status.services) {
        frontend(service, number).print(&mut text);
        for (sid, listener) in (1..).zip(&service.listeners) {
            socket(service, listener, number, sid).print(&mut text);
        }
        for (sid, backend) in (1..).zip(&service.backends) {
            server(service, backend, status.at, number, sid).print(&mut text);
        }
        backend(service, status.at, number).print(&mut text);
    }
    text
}

/// One line under construction: (column, value).
struct Row(Vec<(&'static str, String)>);

impl Row {
    fn new(service: &ServiceStatus, svname: &str, kind: u64, iid: u64, sid: u64) -> Self {
        let row = Self(vec![("pxname", service.name.to_string()), ("svname", svname.to_owned())]);
        row.set("type", kind).set("pid", 1).set("iid", iid).set("sid", sid).set("mode", "tcp")
    }

    fn set(mut self, column: &'static str, value: impl ToString) -> Self {
        self.0.push((column, value.to_string()));
        self
    }

    fn counters(self, current: u64, counters: &Counters) -> Self {
        self.set("scur", current)
            .set("smax", counters.max_connections_seen)
            .set("stot", counters.sessions)
            .set("bin", counters.bytes_in)
            .set("bout", counters.bytes_out)
            .set("conn_tot", counters.sessions)
    }

    fn print(&self, text: &mut String) {
        for column in COLUMNS.split(',') {
            if let Some((_, value)) = self.0.iter().find(|(name, _)| *name == column) {
                text.push_str(&quote(value));
            }
            text.push(',');
        }
        text.push('\n');
    }
}

/// A value with a comma, quote or line break is quoted, and its quotes doubled.
fn quote(value: &str) -> String {
    if value.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", value.replace('"', "\"\""))
    } else {
        value.to_owned()
    }
}

fn frontend(service: &ServiceStatus, iid: u64) -> Row {
    let listeners = &service.listeners;
    let all = sum(listeners.iter().map(|l| &l.counters));
    Row::new(service, "FRONTEND", FRONTEND, iid, 0)
        .set("status", "OPEN")
        .counters(listeners.iter().map(|l| l.connections).sum(), &all)
        .set("slim", listeners.iter().map(|l| l.limit).sum::<u64>())
        .set("dcon", all.errors)
        .set("dreq", 0)
        .set("dresp", 0)
        .set("ereq", 0)
}

fn socket(service: &ServiceStatus, listener: &ListenerStatus, iid: u64, sid: u64) -> Row {
    Row::new(service, &listener.address.to_string(), SOCKET, iid, sid)
        .set("status", "OPEN")
        .counters(listener.connections, &listener.counters)
        .set("slim", listener.limit)
        .set("dcon", listener.counters.errors)
        .set("addr", listener.address)
}

fn server(service: &ServiceStatus, backend: &BackendStatus, now: WallTime, iid: u64, sid: u64) -> Row {
    let all = sum(backend.endpoints.iter().map(|e| &e.counters));
    let backup = backend.tier == "backup";
    let row = Row::new(service, backend.name.as_str(), SERVER, iid, sid)
        .set("status", state_word(backend))
        .counters(backend.connections, &all)
        .set("qcur", 0)
        .set("econ", all.errors)
        .set("eresp", 0)
        .set("wretr", 0)
        .set("wredis", 0)
        .set("srv_abrt", all.cut.iter().map(|(_, n)| n).sum::<u64>())
        .set("lbtot", all.sessions)
        .set("weight", backend.weight)
        .set("uweight", backend.weight)
        .set("act", u8::from(!backup))
        .set("bck", u8::from(backup))
        .set("chkfail", backend.failed_probes)
        .set("chkdown", backend.recoveries + u64::from(backend.health == "down"))
        .set("lastchg", age(backend, now))
        .set("downtime", if backend.health == "down" { age(backend, now) } else { 0 });
    let row = match backend.endpoints.as_slice() {
        [only] => row.set("addr", only.ip),
        _ => row,
    };
    match &backend.last_probe {
        Some(probe) => row
            .set("check_status", if backend.failures == 0 { "L7OK" } else { "L7RSP" })
            .set("check_duration", probe.took_us / 1000)
            .set("last_chk", &probe.text),
        None => row,
    }
}

fn backend(service: &ServiceStatus, now: WallTime, iid: u64) -> Row {
    let all = sum(service.backends.iter().flat_map(|b| &b.endpoints).map(|e| &e.counters));
    let serves = service.open && service.backends.iter().any(|b| b.active && is_healthy(b));
    Row::new(service, "BACKEND", BACKEND, iid, 0)
        .set("status", if serves { "UP" } else { "DOWN" })
        .set("qcur", service.held)
        .counters(service.backends.iter().map(|b| b.connections).sum(), &all)
        .set("dreq", 0)
        .set("dresp", 0)
        .set("econ", all.errors)
        .set("eresp", 0)
        .set("wretr", 0)
        .set("wredis", 0)
        .set("srv_abrt", all.cut.iter().map(|(_, n)| n).sum::<u64>())
        .set("lbtot", all.sessions)
        .set("weight", service.backends.iter().filter(|b| b.active).map(|b| b.weight).sum::<u32>())
        .set("act", service.backends.iter().filter(|b| b.tier != "backup" && is_healthy(b)).count())
        .set("bck", standbys(service).filter(|b| b.tier == "backup" && is_healthy(b)).count())
        .set("chkdown", super::health::failovers(service))
        .set("lastchg", service.since.map_or(0, |since| now.since(since).as_secs()))
        .set("downtime", 0)
        .set("algo", "roundrobin")
}

/// HAProxy's words: a quarantined side is in maintenance too, one without a fresh verdict is not checked.
fn state_word(backend: &BackendStatus) -> &'static str {
    match backend.health.as_str() {
        _ if backend.quarantined.is_some() || backend.admin_state() == "maint" => "MAINT",
        "up" if backend.admin_state() == "drain" => "DRAIN",
        "up" => "UP",
        "down" | "recovering" => "DOWN",
        _ => "no check",
    }
}

fn age(backend: &BackendStatus, now: WallTime) -> u64 {
    backend.health_since.map_or(0, |since| now.since(since).as_secs())
}

fn sum<'a>(each: impl Iterator<Item = &'a Counters>) -> Counters {
    each.fold(Counters::default(), |mut all, one| {
        all.sessions += one.sessions;
        all.max_connections_seen += one.max_connections_seen;
        all.bytes_in += one.bytes_in;
        all.bytes_out += one.bytes_out;
        all.errors += one.errors;
        all.cut.extend(one.cut.iter().cloned());
        all
    })
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    /// One parsed line.
    fn rows(text: &str) -> Vec<std::collections::BTreeMap<String, String>> {
        let mut lines = text.lines();
        let names: Vec<_> = lines.next().unwrap().trim_start_matches("# ").split(',').map(str::to_owned).collect();
        let cells = |line: &str| {
            let (mut cells, mut cell, mut quoted) = (Vec::new(), String::new(), false);
            for c in line.chars() {
                match c {
                    '"' => quoted = !quoted,
                    ',' if !quoted => cells.push(std::mem::take(&mut cell)),
                    c => cell.push(c),
                }
            }
            cells
        };
        let parsed = lines.map(|line| {
            let cells = cells(line);
            assert_eq!(cells.len() + 1, names.len(), "{line}");
            names.iter().cloned().zip(cells).collect()
        });
        parsed.collect()
    }

    #[test]
    fn the_columns_are_those_of_haproxy_in_its_order() {
        let text = render(&fixture::steady());
        assert!(text.starts_with("# pxname,svname,qcur,qmax,scur,smax,slim,stot,bin,bout,dreq,dresp,ereq,econ,"));
        assert_eq!(COLUMNS.split(',').count(), 103);
        assert_eq!(COLUMNS.split(',').nth(32), Some("type"));
        assert_eq!(COLUMNS.split(',').nth(73), Some("addr"));
    }

    #[test]
    fn each_row_says_what_it_is_and_how_it_is() {
        let rows = rows(&render(&fixture::steady()));
        let of = |name: &str| rows.iter().find(|r| r["svname"] == name).unwrap();
        assert_eq!((of("FRONTEND")["status"].as_str(), of("FRONTEND")["type"].as_str()), ("OPEN", "0"));
        assert_eq!((of("BACKEND")["status"].as_str(), of("BACKEND")["type"].as_str()), ("UP", "1"));
        assert_eq!(of("us-east")["status"], "UP");
        assert_eq!((of("us-east")["act"].as_str(), of("us-west")["bck"].as_str()), ("1", "1"));
        assert_eq!(of("us-east")["scur"], "212");
        assert_eq!(of("us-east")["weight"], "100");
        assert_eq!(of("127.0.0.1:26257")["type"], "3");
    }

    #[test]
    fn held_clients_stand_in_the_queue_while_no_side_serves() {
        let rows = rows(&render(&fixture::promoting()));
        let backend = rows.iter().find(|r| r["svname"] == "BACKEND").unwrap();
        assert_eq!((backend["status"].as_str(), backend["qcur"].as_str()), ("DOWN", "87"));
        let east = rows.iter().find(|r| r["svname"] == "us-east").unwrap();
        assert_eq!(east["status"], "DOWN");
    }

    #[test]
    fn a_quarantined_side_is_in_maintenance() {
        let rows = rows(&render(&fixture::quarantined()));
        assert_eq!(rows.iter().find(|r| r["svname"] == "us-east").unwrap()["status"], "MAINT");
    }

    #[test]
    fn a_hostile_text_stays_in_its_cell() {
        let mut status = fixture::steady();
        status.services[0].backends[0].last_probe.as_mut().unwrap().text = "a,\"b\"\nc".to_owned();
        let text = render(&status);
        assert!(text.contains("\"a,\"\"b\"\"\nc\""), "{text}");
    }
}
