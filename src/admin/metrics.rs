//! `GET /metrics`: the published view as Prometheus text. Every scrape fills a registry of its own, so that a backend
//! that a reload removed is gone at once and nothing global is shared.

mod following;
mod patroni;
mod policy;
mod sides;
mod streams;

use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use prometheus::proto::{Bucket, Histogram, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{GaugeVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};

use super::health::{self, active, failovers, is_healthy, recoveries, standbys};
use super::problem::Fault;
use super::server::Shared;
use crate::failover::phase::{BlockReason, Phase};
use crate::types::WallTime;
use crate::view::{BOUNDS_US, BackendStatus, Counters, Durations, ServiceStatus, Status};

/// `GET /metrics`.
pub(super) async fn exposition(State(shared): State<Arc<Shared>>) -> Result<Response, Fault> {
    let pulse = Pulse { live: (shared.state.live)().is_ok(), ready: health::is_ready(&shared).is_ok() };
    let text = render(&shared.state.status.load(), pulse).map_err(|e| Fault::Render { cause: e.to_string() })?;
    Ok(([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response())
}

type Filled = Result<(), prometheus::Error>;

/// What `/live` and `/ready` say now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pulse {
    live: bool,
    ready: bool,
}

/// The whole exposition.
pub(super) fn render(status: &Status, pulse: Pulse) -> Result<String, prometheus::Error> {
    let sheet = Sheet(Registry::new());
    daemon(&sheet, status, pulse)?;
    seeds(&sheet, &status.services)?;
    decision(&sheet, &status.services)?;
    policy::policy(&sheet, &status.services)?;
    sides::sides(&sheet, &status.services)?;
    streams::streams(&sheet, &status.services)?;
    patroni::patroni(&sheet, &status.services)?;
    following::fill(&sheet, &status.services)?;
    probes(&sheet, &status.services)?;
    traffic(&sheet, &status.services)?;
    let mut families = sheet.0.gather();
    families.extend(histograms(&status.services));
    TextEncoder::new().encode_to_string(&families)
}

/// Makes families and registers them.
struct Sheet(Registry);

impl Sheet {
    fn gauge(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, prometheus::Error> {
        let family = IntGaugeVec::new(Opts::new(name, help), labels)?;
        self.0.register(Box::new(family.clone()))?;
        Ok(family)
    }

    fn float(&self, name: &str, help: &str, labels: &[&str]) -> Result<GaugeVec, prometheus::Error> {
        let family = GaugeVec::new(Opts::new(name, help), labels)?;
        self.0.register(Box::new(family.clone()))?;
        Ok(family)
    }

    fn counter(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
        let family = IntCounterVec::new(Opts::new(name, help), labels)?;
        self.0.register(Box::new(family.clone()))?;
        Ok(family)
    }
}

/// A gauge holds what fits; positions in the log beyond 2^63 do not occur.
fn int(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn seconds(at: WallTime) -> f64 {
    at.0 as f64 / 1e6
}

fn daemon(sheet: &Sheet, status: &Status, pulse: Pulse) -> Filled {
    let info = sheet.gauge("pgpivot_build_info", "Always 1; the version is in the label.", &["version"])?;
    info.with_label_values(&[&status.version]).set(1);
    let start = sheet.float("pgpivot_start_time_seconds", "When the daemon started, seconds since 1970.", &[])?;
    start.with_label_values::<&str>(&[]).set(seconds(status.started));
    let generation = sheet.gauge("pgpivot_routing_generation", "Number of the routing snapshot.", &[])?;
    generation.with_label_values::<&str>(&[]).set(int(status.generation));
    let writable = sheet.gauge("pgpivot_state_writable", "1 while the state can be written to disk.", &[])?;
    writable.with_label_values::<&str>(&[]).set(i64::from(status.state_error.is_none()));
    let live = sheet.gauge("pgpivot_live", "1 while every decision loop turns, as /live says.", &[])?;
    live.with_label_values::<&str>(&[]).set(i64::from(pulse.live));
    let ready = sheet.gauge(
        "pgpivot_ready",
        "1 while newcomers are taken and the state can be written, as /ready says.",
        &[],
    )?;
    ready.with_label_values::<&str>(&[]).set(i64::from(pulse.ready));
    let failures = "Ends of tasks that must not end, since the start.";
    sheet
        .counter("pgpivot_task_failures_total", failures, &[])?
        .with_label_values::<&str>(&[])
        .inc_by(status.task_failures);
    Ok(())
}

/// Names that dashboards of older set-ups know. With one service they carry no label of ours.
fn seeds(sheet: &Sheet, services: &[ServiceStatus]) -> Filled {
    let plain: &[&str] = if services.len() > 1 { &["service"] } else { &[] };
    let indexed: &[&str] = if services.len() > 1 { &["service", "standby"] } else { &["standby"] };
    let state_help = "0 unknown, 1 healthy, 2 degraded, 3 failover in progress, 4 complete, 5 recovery in progress.";
    let state = sheet.gauge("failover_state", state_help, plain)?;
    let total = sheet.counter("failover_total", "Changes of the active side since the start.", plain)?;
    let recovered = "Times a side came back up, since the start.";
    let recovered = sheet.counter("failover_recoveries_total", recovered, plain)?;
    let failed = "Probes that failed, since the start.";
    let failed = sheet.counter("failover_health_check_failures_total", failed, plain)?;
    let primary = sheet.gauge("failover_primary_healthy", "1 while the active side is up.", plain)?;
    let standby = "1 while this standby is up; counted from 0 in the order of the configuration.";
    let standby = sheet.gauge("failover_standby_healthy", standby, indexed)?;
    for service in services {
        let name = service.name.as_str();
        let labels: &[&str] = if services.len() > 1 { &[name] } else { &[] };
        state.with_label_values(labels).set(state_number(&service.state));
        total.with_label_values(labels).inc_by(failovers(service));
        recovered.with_label_values(labels).inc_by(recoveries(service));
        failed.with_label_values(labels).inc_by(service.backends.iter().map(|b| b.failed_probes).sum());
        primary.with_label_values(labels).set(i64::from(active(service).is_some_and(is_healthy)));
        for (index, side) in standbys(service).enumerate() {
            let index = index.to_string();
            let labels = [labels, &[index.as_str()]].concat();
            standby.with_label_values(&labels).set(i64::from(is_healthy(side)));
        }
    }
    Ok(())
}

fn state_number(state: &str) -> i64 {
    match state {
        "healthy" => 1,
        "degraded" => 2,
        "failover_in_progress" => 3,
        "failover_complete" => 4,
        "recovery_in_progress" => 5,
        _ => 0,
    }
}

fn decision(sheet: &Sheet, services: &[ServiceStatus]) -> Filled {
    let one = &["service"][..];
    let epoch = sheet.gauge("pgpivot_epoch", "Number of the latch: +1 at every change of the active side.", one)?;
    let since = "When the active side became it, seconds since 1970.";
    let since = sheet.float("pgpivot_active_since_seconds", since, one)?;
    let phase = sheet.gauge("pgpivot_phase", "1 for the phase the service is in.", &["service", "phase"])?;
    let blocked = sheet.gauge("pgpivot_blocked", "1 while this reason blocks a decision.", &["service", "reason"])?;
    let paused = sheet.gauge("pgpivot_paused", "1 while an operator stopped new decisions.", one)?;
    let open = sheet.gauge("pgpivot_open", "1 while newcomers pass.", one)?;
    let held = sheet.gauge("pgpivot_held_connections", "Clients that wait for a side that may be used.", one)?;
    let left = "Automatic episodes left within 24 hours.";
    let left = sheet.gauge("pgpivot_failover_budget_left", left, one)?;
    let budget = sheet.gauge("pgpivot_failover_budget", "Automatic episodes allowed in 24 hours.", one)?;
    let cooldown = "No automatic episode before this, seconds since 1970; 0 = none.";
    let cooldown = sheet.float("pgpivot_cooldown_until_seconds", cooldown, one)?;
    let armed = sheet.gauge("pgpivot_armed", "1 while at least one standby could be promoted right now.", one)?;
    let others = sheet.gauge(
        "pgpivot_other_daemons",
        "Other daemons, and other pairs of this one, on the same servers.",
        one,
    )?;
    let episodes = sheet.counter("pgpivot_episodes_total", "Episodes since the first start.", one)?;
    let labels = &["service", "trigger", "kind", "outcome"];
    let switches = sheet.counter("pgpivot_failovers_total", "Episodes since the start, by how they ended.", labels)?;
    let relayed = "Bytes relayed to a side after another one was promoted by somebody else, until that was known.";
    let relayed = sheet.counter("pgpivot_beside_relayed_bytes_total", relayed, one)?;
    let log = "Bytes of log that stand only on sides that were left when a promotion of somebody else was followed.";
    let log = sheet.counter("pgpivot_beside_log_bytes_total", log, one)?;
    let worst = "Worst case from the failure to the decision; no value = no automatic decision.";
    let worst = sheet.float("pgpivot_detection_seconds", worst, &["service", "failure"])?;
    for s in services {
        let name = [s.name.as_str()];
        epoch.with_label_values(&name).set(int(s.epoch.0));
        since.with_label_values(&name).set(s.since.map_or(0.0, seconds));
        for p in Phase::ALL.map(Phase::as_str) {
            phase.with_label_values(&[name[0], p]).set(i64::from(p == s.phase));
        }
        for reason in BlockReason::ALL.map(BlockReason::as_str) {
            let stands = s.blocked.as_ref().is_some_and(|b| b.reason == reason);
            blocked.with_label_values(&[name[0], reason]).set(i64::from(stands));
        }
        paused.with_label_values(&name).set(i64::from(s.paused.is_some()));
        open.with_label_values(&name).set(i64::from(s.open));
        held.with_label_values(&name).set(int(s.held));
        left.with_label_values(&name).set(i64::from(s.budget_left));
        budget.with_label_values(&name).set(i64::from(s.budget));
        cooldown.with_label_values(&name).set(s.cooldown_until.map_or(0.0, seconds));
        armed.with_label_values(&name).set(i64::from(s.armed));
        others.with_label_values(&name).set(int(s.other_daemons.len() as u64));
        episodes.with_label_values(&name).inc_by(s.episodes);
        for w in &s.switches {
            switches.with_label_values(&[name[0], &w.trigger, &w.kind, &w.outcome]).inc_by(w.count);
        }
        relayed.with_label_values(&name).inc_by(s.beside.relayed_bytes);
        log.with_label_values(&name).inc_by(s.beside.log_bytes);
        worst.with_label_values(&[name[0], "crash"]).set(s.detection_crash_ms as f64 / 1e3);
        if let Some(hang) = s.detection_hang_ms {
            worst.with_label_values(&[name[0], "hang"]).set(hang as f64 / 1e3);
        }
    }
    Ok(())
}

/// Every backend with its two label values.
fn backends(services: &[ServiceStatus]) -> impl Iterator<Item = ([&str; 2], &BackendStatus)> {
    services.iter().flat_map(|s| s.backends.iter().map(|b| ([s.name.as_str(), b.name.as_str()], b)))
}

fn probes(sheet: &Sheet, services: &[ServiceStatus]) -> Filled {
    let two = &["service", "backend"][..];
    let all = sheet.counter("pgpivot_probes_total", "Probes since the start.", two)?;
    let failed = sheet.counter("pgpivot_probe_failures_total", "Probes that failed, since the start.", two)?;
    let row = "Consecutive probes that failed.";
    let row = sheet.gauge("pgpivot_probe_failures_in_a_row", row, two)?;
    let at = sheet.float("pgpivot_probe_time_seconds", "When the last probe ended, seconds since 1970.", two)?;
    let recovered = "Times the side came back up, since the start.";
    let recovered = sheet.counter("pgpivot_backend_recoveries_total", recovered, two)?;
    for (labels, b) in backends(services) {
        all.with_label_values(&labels).inc_by(b.probes);
        failed.with_label_values(&labels).inc_by(b.failed_probes);
        row.with_label_values(&labels).set(i64::from(b.failures));
        recovered.with_label_values(&labels).inc_by(b.recoveries);
        if let Some(probe) = &b.last_probe {
            at.with_label_values(&labels).set(seconds(probe.at));
        }
    }
    Ok(())
}

/// Counted elsewhere, so that no registry takes them.
fn histograms(services: &[ServiceStatus]) -> Vec<MetricFamily> {
    let family = |name: &str, help: &str, of: fn(&BackendStatus) -> &Durations| {
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(MetricType::HISTOGRAM);
        let all = backends(services).filter(|(_, b)| of(b).count > 0);
        family.set_metric(all.map(|(labels, b)| histogram(labels, of(b))).collect());
        family
    };
    let probes = "How long fresh probes took that came to an end.";
    let connects = "How long clients' connections to this side took until they stood.";
    let mut families = vec![
        family("pgpivot_probe_duration_seconds", probes, |b| &b.probe_durations),
        family("pgpivot_connect_duration_seconds", connects, |b| &b.connect_durations),
    ];
    // The encoder takes a family without a metric for a mistake.
    families.retain(|family| !family.get_metric().is_empty());
    families
}

fn histogram([service, backend]: [&str; 2], all: &Durations) -> Metric {
    let pair = |name: &str, value: &str| {
        let mut pair = LabelPair::default();
        pair.set_name(name.to_owned());
        pair.set_value(value.to_owned());
        pair
    };
    let mut below = 0;
    let buckets = BOUNDS_US.iter().zip(all.buckets).map(|(bound, count)| {
        below += count;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound as f64 / 1e6);
        bucket.set_cumulative_count(below);
        bucket
    });
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(all.count);
    histogram.set_sample_sum(all.sum_us as f64 / 1e6);
    let mut metric = Metric::from_label(vec![pair("backend", backend), pair("service", service)]);
    metric.set_histogram(histogram);
    metric
}

fn traffic(sheet: &Sheet, services: &[ServiceStatus]) -> Filled {
    let attached = "Client connections attached to this side now.";
    let attached = sheet.gauge("pgpivot_backend_connections", attached, &["service", "backend"])?;
    for (labels, b) in backends(services) {
        attached.with_label_values(&labels).set(int(b.connections));
    }
    let endpoint = Moved::new(sheet, "endpoint", &["service", "backend", "address"])?;
    let listener = Moved::new(sheet, "listener", &["service", "address", "target"])?;
    let limit = "Connections this listener takes at one time.";
    let limit = sheet.gauge("pgpivot_listener_connection_limit", limit, &["service", "address", "target"])?;
    let expires = "When the certificate of a listener that terminates TLS expires, in Unix time.";
    let labels = ["service", "address", "target"];
    let expires = sheet.gauge("pgpivot_listener_tls_certificate_expiry_timestamp_seconds", expires, &labels)?;
    let refused = "Connections refused over a limit, by its key in the configuration.";
    let labels = ["service", "address", "target", "reason"];
    let refused = sheet.counter("pgpivot_listener_refused_total", refused, &labels)?;
    for service in services {
        let name = service.name.as_str();
        for b in &service.backends {
            for e in &b.endpoints {
                endpoint.fill(&[name, b.name.as_str(), &e.ip.to_string()], e.connections, &e.counters);
            }
        }
        for l in &service.listeners {
            let labels = [name, &l.address.to_string(), l.target.as_str()];
            listener.fill(&labels, l.connections, &l.counters);
            limit.with_label_values(&labels).set(int(l.limit));
            let [service, address, target] = labels;
            for (reason, count) in &l.refused {
                refused.with_label_values(&[service, address, target, reason.as_str()]).inc_by(*count);
            }
            if let Some(at) = l.tls.as_ref().and_then(|tls| tls.expires) {
                expires.with_label_values(&labels).set(at.0.div_euclid(1_000_000));
            }
        }
    }
    Ok(())
}

/// The families that endpoints and listeners have alike.
struct Moved {
    now: IntGaugeVec,
    most: IntGaugeVec,
    sessions: IntCounterVec,
    bytes: IntCounterVec,
    errors: IntCounterVec,
    cut: IntCounterVec,
}

impl Moved {
    fn new(sheet: &Sheet, of: &str, labels: &[&str]) -> Result<Self, prometheus::Error> {
        let with = |label| [labels, &[label]].concat();
        let name = |what: &str| format!("pgpivot_{of}_{what}");
        Ok(Self {
            now: sheet.gauge(&name("connections"), "Open connections.", labels)?,
            most: sheet.gauge(&name("connections_most"), "The most at one time, since the start.", labels)?,
            sessions: sheet.counter(&name("sessions_total"), "Connections since the start.", labels)?,
            bytes: sheet.counter(&name("bytes_total"), "in = from clients, out = to clients.", &with("direction"))?,
            errors: sheet.counter(&name("errors_total"), "Dials that failed, or refusals before a dial.", labels)?,
            cut: sheet.counter(&name("cut_total"), "Connections cut, by reason.", &with("reason"))?,
        })
    }

    fn fill(&self, labels: &[&str], now: u64, counters: &Counters) {
        let with = |label| [labels, &[label]].concat();
        self.now.with_label_values(labels).set(int(now));
        self.most.with_label_values(labels).set(int(counters.max_connections_seen));
        self.sessions.with_label_values(labels).inc_by(counters.sessions);
        self.bytes.with_label_values(&with("in")).inc_by(counters.bytes_in);
        self.bytes.with_label_values(&with("out")).inc_by(counters.bytes_out);
        self.errors.with_label_values(labels).inc_by(counters.errors);
        for (reason, count) in &counters.cut {
            self.cut.with_label_values(&with(reason.as_str())).inc_by(*count);
        }
    }
}

#[cfg(test)]
const LIVELY: Pulse = Pulse { live: true, ready: true };

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    fn value(text: &str, series: &str) -> f64 {
        let line =
            text.lines().find_map(|l| l.strip_prefix(series)).unwrap_or_else(|| panic!("no {series} in\n{text}"));
        line.trim().parse().unwrap()
    }

    #[test]
    fn dashboards_of_older_setups_find_their_names() {
        let text = render(&fixture::steady(), LIVELY).unwrap();
        assert_eq!(value(&text, "failover_state "), 1.0);
        assert_eq!(value(&text, "failover_total "), 2.0);
        assert_eq!(value(&text, "failover_recoveries_total "), 1.0);
        assert_eq!(value(&text, "failover_health_check_failures_total "), 4.0);
        assert_eq!(value(&text, "failover_primary_healthy "), 1.0);
        assert_eq!(value(&text, "failover_standby_healthy{standby=\"0\"} "), 1.0);
        assert!(!text.contains("instance="));
    }

    #[test]
    fn a_loop_that_stands_still_shows_although_the_server_answers() {
        let text = render(&fixture::steady(), Pulse { live: false, ready: true }).unwrap();
        assert_eq!((value(&text, "pgpivot_live "), value(&text, "pgpivot_ready ")), (0.0, 1.0));
    }

    #[test]
    fn every_reason_to_block_is_a_series_so_that_its_end_shows_at_once() {
        let text = render(&fixture::blocked(), LIVELY).unwrap();
        assert_eq!(text.matches("\npgpivot_blocked{").count(), BlockReason::ALL.len());
        let stands = text.lines().filter(|line| line.starts_with("pgpivot_blocked{") && line.ends_with(" 1"));
        assert_eq!(stands.count(), 1, "{text}");
    }

    #[test]
    fn two_services_are_told_apart() {
        let mut status = fixture::steady();
        let mut other = status.services[0].clone();
        other.name = "billing".into();
        other.state = "degraded".to_owned();
        status.services.push(other);
        let text = render(&status, LIVELY).unwrap();
        assert_eq!(value(&text, "failover_state{service=\"billing\"} "), 2.0);
        assert_eq!(value(&text, "failover_standby_healthy{service=\"main\",standby=\"0\"} "), 1.0);
    }

    #[test]
    fn what_the_page_shows_is_there_as_numbers() {
        let text = render(&fixture::promoting(), LIVELY).unwrap();
        assert_eq!(value(&text, "pgpivot_phase{phase=\"promoting\",service=\"main\"} "), 1.0);
        assert_eq!(value(&text, "pgpivot_phase{phase=\"steady\",service=\"main\"} "), 0.0);
        assert_eq!(value(&text, "pgpivot_held_connections{service=\"main\"} "), 87.0);
        assert_eq!(value(&text, "pgpivot_open{service=\"main\"} "), 0.0);
        assert_eq!(value(&text, "pgpivot_backend_health{backend=\"us-east\",health=\"down\",service=\"main\"} "), 1.0);
        assert_eq!(value(&text, "pgpivot_witness{backend=\"us-west\",service=\"main\",witness=\"gone\"} "), 1.0);
        let cut = "pgpivot_endpoint_cut_total{address=\"10.0.1.5:5432\",backend=\"us-east\",reason=\"demoted\",service=\"main\"} ";
        assert_eq!(value(&text, cut), 212.0);
    }

    #[test]
    fn how_long_probes_and_connects_took_is_a_histogram_of_each_side() {
        let mut status = fixture::steady();
        assert!(
            !render(&status, LIVELY).unwrap().contains("pgpivot_connect_duration_seconds"),
            "nothing was connected yet"
        );
        let side = &mut status.services[0].backends[0];
        for ms in [1, 1, 700, 9000] {
            side.connect_durations.add(std::time::Duration::from_millis(ms));
        }
        let text = render(&status, LIVELY).unwrap();
        let bucket = |le| {
            format!("pgpivot_connect_duration_seconds_bucket{{backend=\"us-east\",service=\"main\",le=\"{le}\"}} ")
        };
        assert_eq!(value(&text, &bucket("0.0005")), 0.0);
        assert_eq!(value(&text, &bucket("0.001")), 2.0);
        assert_eq!(value(&text, &bucket("1")), 3.0);
        assert_eq!(value(&text, &bucket("5")), 3.0);
        assert_eq!(value(&text, &bucket("+Inf")), 4.0);
        assert_eq!(value(&text, "pgpivot_connect_duration_seconds_sum{backend=\"us-east\",service=\"main\"} "), 9.702);
    }

    #[test]
    fn every_line_is_a_comment_or_a_number_and_hostile_names_are_escaped() {
        let mut status = fixture::steady();
        status.services[0].backends[0].name = "a\"b\\c\nd".into();
        let text = render(&status, LIVELY).unwrap();
        for line in text.lines().filter(|l| !l.starts_with('#')) {
            let number = line.rsplit(' ').next().unwrap();
            assert!(number.parse::<f64>().is_ok(), "{line}");
        }
        assert!(text.contains(r#"backend="a\"b\\c\nd""#));
    }
}
