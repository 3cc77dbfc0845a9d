//! `status --watch`: the status again and again, until it is interrupted. A daemon that is away is waited for.

use std::time::Duration;

use super::api::{Api, ApiError};
use super::terminal::Terminal;
use super::{CtlError, Done, services, status};
use crate::view::Status;

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(500);

/// Runs until the process is interrupted or the output is closed. The first look must succeed.
pub(super) async fn run(api: &Api, terminal: &Terminal, service: Option<&str>) -> Result<Done, CtlError> {
    let mut shown: Option<Result<Status, String>> = None;
    let mut first = true;
    loop {
        let seen = match api.status().await {
            Ok(status) => Ok(status),
            Err(error) if first || error.refused() => return Err(error.into()),
            Err(ApiError::NotPgpivot { target, cause }) => return Err(ApiError::NotPgpivot { target, cause }.into()),
            Err(error) => Err(error.to_string()),
        };
        show(terminal, service, &seen, shown.as_ref())?;
        shown = Some(seen);
        first = false;
        tokio::time::sleep(INTERVAL).await;
    }
}

fn show(
    terminal: &Terminal,
    service: Option<&str>,
    seen: &Result<Status, String>,
    before: Option<&Result<Status, String>>,
) -> Result<(), CtlError> {
    let status = match seen {
        Ok(status) => status,
        Err(sentence) => {
            if before != Some(seen) {
                terminal.problem(sentence)?;
            }
            return Ok(());
        }
    };
    let chosen = services(status, service)?;
    if terminal.json {
        return match before {
            Some(Ok(before)) if !changed(before, status) => Ok(()),
            _ => match service {
                Some(_) => chosen.iter().try_for_each(|s| terminal.result_json(s)),
                None => terminal.result_json(status),
            },
        };
    }
    let text = status::render(status, &chosen, terminal.fitted());
    match (terminal.redraws, before) {
        (true, _) => terminal.redraw(&text)?,
        (false, Some(Ok(before))) if !changed(before, status) => {}
        (false, _) => terminal.result(&text)?,
    }
    Ok(())
}

/// Something other than clocks and counters moved. A line for every byte would be noise.
fn changed(before: &Status, now: &Status) -> bool {
    let quiet = |status: &Status| {
        let mut status = status.clone();
        status.at = Default::default();
        for s in &mut status.services {
            s.evidence.clear();
            s.held = s.held.min(1);
            for l in &mut s.listeners {
                l.connections = 0;
                l.counters = Default::default();
            }
            for b in &mut s.backends {
                (b.lsn, b.lag_bytes, b.replay_backlog_bytes, b.last_probe) = (None, None, None, None);
                (b.failures, b.failed_probes, b.probes, b.connections) = (0, 0, 0, 0);
                for e in &mut b.endpoints {
                    e.connections = 0;
                    e.counters = Default::default();
                }
            }
        }
        status
    };
    quiet(before) != quiet(now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::sample;
    use crate::ctl::terminal::captured;

    #[test]
    fn a_line_is_printed_at_every_change_and_at_no_other_time() {
        let (terminal, out, _) = captured::terminal(true, None);
        let calm = sample::steady();
        let mut busy = calm.clone();
        busy.services[0].listeners[0].counters.bytes_in += 1;
        busy.services[0].backends[1].lag_bytes = Some(0);
        show(&terminal, None, &Ok(calm.clone()), None).unwrap();
        show(&terminal, None, &Ok(busy.clone()), Some(&Ok(calm))).unwrap();
        show(&terminal, None, &Ok(sample::blocked()), Some(&Ok(busy))).unwrap();
        let text = out.text();
        let lines: Vec<Status> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(lines, [sample::steady(), sample::blocked()]);
    }

    #[test]
    fn a_daemon_that_went_away_is_said_once() {
        let (terminal, _, err) = captured::terminal(false, None);
        let away: Result<Status, String> = Err("no pgpivot answers".into());
        show(&terminal, None, &away, Some(&Ok(sample::steady()))).unwrap();
        show(&terminal, None, &away, Some(&away)).unwrap();
        assert_eq!(err.text(), "proxyctl: no pgpivot answers\n");
    }
}
