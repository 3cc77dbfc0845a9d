//! `monitor`: beside a daemon it shows what that sees and decides, check by check. Where none answers it is the
//! controller itself: the daemon without listeners, on the same state, with the same lock and history.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::api::{Api, ApiError};
use super::args::Global;
use super::history::Line;
use super::target::Target;
use super::terminal::Terminal;
use super::{CtlError, Done, services};
use crate::config::Config;
use crate::daemon::{self, DaemonError, Options, Source, signals, telemetry};
use crate::types::{HostPort, WallTime};
use crate::view::{BackendStatus, ServiceStatus, Status};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(250);
/// The countdown is said this often, seconds.
const COUNT: i64 = 10;
/// Lines of the history looked at each time.
const HISTORY: u32 = 50;

/// Runs until it is interrupted. `named`: the caller said which daemon is meant, so nobody else will do.
pub(super) async fn run(api: &Api, named: bool, terminal: &Terminal, global: &Global) -> Result<Done, CtlError> {
    match api.status().await {
        Ok(status) => {
            terminal.talk(&format!("{} decides; this shows what it sees (Ctrl-C ends the showing)", status.daemon))?;
            let stop = interrupted()?;
            watch(api, terminal, global.service.as_deref(), &stop).await
        }
        Err(ApiError::Unreachable { .. }) if !named => control(terminal, global).await,
        Err(error) => Err(error.into()),
    }
}

/// A token that is cancelled when the process is told to end.
fn interrupted() -> Result<CancellationToken, CtlError> {
    let (stop, halt) = (CancellationToken::new(), CancellationToken::new());
    // The task lives as long as the process.
    drop(signals::listen(stop.clone(), halt)?);
    Ok(stop)
}

/// The controller itself.
async fn control(terminal: &Terminal, global: &Global) -> Result<Done, CtlError> {
    let source = Source { path: global.config.clone() };
    let config = without_listeners(daemon::load(&source).map_err(DaemonError::from)?);
    let address = config.admin.listen;
    let _log = telemetry::install(true);
    let (stop, halt) = (CancellationToken::new(), CancellationToken::new());
    let (reloads, signals) = signals::listen(stop.clone(), halt.clone())?;
    // A reload would bring the listeners back.
    drop(reloads);
    let (keep, reloads) = mpsc::channel(1);
    let options = Options { config, source: None, stop: stop.clone(), halt, reloads, notify: true };
    let shown = async {
        let Some(address) = address else {
            stop.cancelled().await;
            return Ok(Done::Yes);
        };
        let api = Api::new(
            Target::Http(HostPort { host: address.ip().to_string().into(), port: address.port() }),
            None,
            None,
        );
        while api.status().await.is_err() && !stop.is_cancelled() {
            tokio::time::sleep(LOOK).await;
        }
        terminal
            .talk("no daemon answers, so this is the controller: it watches and decides until it is ended (Ctrl-C)")?;
        watch(&api, terminal, global.service.as_deref(), &stop).await
    };
    let ended = {
        let running = daemon::run(options);
        tokio::pin!(running, shown);
        let mut showing = true;
        loop {
            tokio::select! {
                ended = &mut running => break ended.map(|_| Done::Yes).map_err(CtlError::from),
                done = &mut shown, if showing => {
                    showing = false;
                    if let Err(error) = done {
                        stop.cancel();
                        running.await?;
                        break Err(error);
                    }
                    stop.cancel();
                }
            }
        }
    };
    drop(keep);
    signals.abort();
    ended
}

/// Watching and deciding takes no listener.
fn without_listeners(mut config: Config) -> Config {
    for service in &mut config.services {
        service.listeners.clear();
    }
    config
}

async fn watch(
    api: &Api,
    terminal: &Terminal,
    service: Option<&str>,
    stop: &CancellationToken,
) -> Result<Done, CtlError> {
    let mut shown = Shown::default();
    loop {
        match look(api, service).await {
            Ok((status, history)) => shown.take(&status, service, &history, terminal)?,
            Err(CtlError::Api(error)) if !stop.is_cancelled() && !error.refused() => shown.lost(&error, terminal)?,
            Err(_) if stop.is_cancelled() => return Ok(Done::Yes),
            Err(error) => return Err(error),
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(Done::Yes),
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

async fn look(api: &Api, service: Option<&str>) -> Result<(Status, Vec<Line>), CtlError> {
    let status = api.status().await?;
    let history = api.history(service, HISTORY).await?;
    Ok((status, history.iter().map(Line::read).collect()))
}

/// What was said so far.
#[derive(Debug, Default)]
struct Shown {
    before: BTreeMap<String, ServiceStatus>,
    told: Option<WallTime>,
    lost: bool,
}

impl Shown {
    fn take(
        &mut self,
        status: &Status,
        service: Option<&str>,
        history: &[Line],
        terminal: &Terminal,
    ) -> Result<(), CtlError> {
        self.lost = false;
        let mut said = Vec::new();
        for service in services(status, service)? {
            let before = self.before.insert(service.name.to_string(), service.clone());
            said.extend(sentences(before.as_ref(), service, status.at));
        }
        for line in self.news(history, status.at) {
            said.push((line.at, line.sentence.clone()));
        }
        said.sort_by_key(|(at, _)| *at);
        for (at, sentence) in said {
            match terminal.json {
                true => terminal.result_json(&serde_json::json!({ "at": at.to_string(), "sentence": sentence }))?,
                false => terminal.result(&format!("{at}  {sentence}"))?,
            }
        }
        Ok(())
    }

    /// What was written down since the last look, from the first look on.
    fn news<'l>(&mut self, history: &'l [Line], now: WallTime) -> Vec<&'l Line> {
        let since = self.told.unwrap_or(now);
        self.told = history.iter().map(|line| line.at).max().max(Some(since));
        history.iter().filter(|line| line.at > since && line.kind != "health" && line.kind != "phase").collect()
    }

    fn lost(&mut self, error: &ApiError, terminal: &Terminal) -> std::io::Result<()> {
        if !std::mem::replace(&mut self.lost, true) {
            terminal.problem(&error.to_string())?;
        }
        Ok(())
    }
}

/// What there is to say of one service since the last look.
fn sentences(before: Option<&ServiceStatus>, now: &ServiceStatus, at: WallTime) -> Vec<(WallTime, String)> {
    let name = &now.name;
    let mut said = Vec::new();
    let Some(before) = before else {
        let side = now
            .active
            .as_ref()
            .map_or_else(|| "nobody is active yet".to_owned(), |a| format!("{a} is active (epoch {})", now.epoch));
        said.push((at, format!("{name}: {side}; {}", now.next)));
        return said;
    };
    for side in &now.backends {
        let checks = before.backends.iter().find(|b| b.name == side.name).map_or(0, |b| b.probes);
        if side.active && side.probes > checks {
            said.push((side.last_probe.as_ref().map_or(at, |probe| probe.at), check(now, side)));
        }
    }
    if before.phase != now.phase {
        said.push((at, format!("{name}: {} → {}: {}", before.phase, now.phase, now.evidence)));
    }
    said.extend(countdown(before.decides_at, now, at).map(|sentence| (at, sentence)));
    said
}

/// One check of the active side, with the standbys beside it.
fn check(service: &ServiceStatus, side: &BackendStatus) -> String {
    let text = side.last_probe.as_ref().map_or("nothing", |probe| probe.text.as_str());
    let result = match side.failures {
        0 => format!("check {} of {}: {text}", side.probes, side.name),
        n if n >= service.fall => {
            format!("check of {} failed ({n}/{}), threshold reached: {text}", side.name, service.fall)
        }
        n => format!("check of {} failed ({n}/{}): {text}", side.name, service.fall),
    };
    let standbys = service.backends.iter().filter(|b| !b.active).map(|b| {
        let behind = service
            .stream_lag_ms(&b.name)
            .map(|ms| format!(", {} s behind", ms / 1000))
            .or_else(|| b.lag_bytes.map(|bytes| format!(", {bytes} bytes behind")));
        let armed = if b.armed { "could take over" } else { "could not take over" };
        format!("; {} {}{}, {armed}", b.name, b.role, behind.unwrap_or_default())
    });
    result + &standbys.collect::<String>()
}

/// The time until the last look, every ten seconds.
fn countdown(before: Option<WallTime>, now: &ServiceStatus, at: WallTime) -> Option<String> {
    let until = now.decides_at?;
    let left = |at: WallTime| (until.0 - at.0).div_euclid(1_000_000);
    let last = WallTime(at.0 - i64::try_from(LOOK.as_micros()).unwrap_or_default());
    let fresh = before.is_none() || left(last).div_euclid(COUNT) != left(at).div_euclid(COUNT);
    fresh.then(|| format!("{}: last look, and the decision, in {} s", now.name, left(at).max(0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::sample;

    fn second(n: i64) -> WallTime {
        WallTime(1_800_000_000_000_000 + n * 1_000_000)
    }

    #[test]
    fn every_check_of_the_active_side_is_a_line_and_a_failed_one_counts_towards_the_threshold() {
        let before = sample::steady().services[0].clone();
        let mut now = before.clone();
        assert!(sentences(Some(&before), &now, second(0)).is_empty(), "nothing happened");
        let side = now.backends.iter_mut().find(|b| b.active).unwrap();
        side.probes += 1;
        side.failures = 2;
        let name = side.name.clone();
        let said = sentences(Some(&before), &now, second(1));
        assert_eq!(said.len(), 1);
        assert!(said[0].1.starts_with(&format!("check of {name} failed (2/3)")), "{said:?}");
        assert!(said[0].1.contains("could take over"), "{said:?}");
        now.backends.iter_mut().find(|b| b.active).unwrap().failures = 3;
        assert!(sentences(Some(&before), &now, second(1))[0].1.contains("threshold reached"));
    }

    #[test]
    fn the_time_until_the_decision_is_counted_down_in_tens() {
        let mut now = sample::steady().services[0].clone();
        now.decides_at = Some(second(60));
        let said = |before: Option<WallTime>, at: i64| countdown(before, &now, second(at));
        assert!(said(None, 0).unwrap().contains("in 60 s"));
        assert_eq!(said(now.decides_at, 5), None);
        let counted = (0..600)
            .filter(|i| countdown(now.decides_at, &now, WallTime(second(0).0 + i * 100_000 + 50_000)).is_some());
        assert!((6..=20).contains(&counted.count()), "about once in ten seconds");
    }

    #[test]
    fn a_controller_takes_no_clients() {
        let text = "[service.main]\nkind = \"postgres\"\n[[service.main.listener]]\naddress = \"127.0.0.1:1\"\n\
                    [[service.main.backend]]\nname = \"a\"\naddresses = [\"127.0.0.1:2\"]\n";
        let (config, _) =
            crate::config::validate::build(crate::config::raw::parse(text), &crate::config::env::Env::default(), 1)
                .unwrap();
        assert!(without_listeners(config).services[0].listeners.is_empty());
    }
}
