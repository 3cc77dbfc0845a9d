//! `settings` and `debug`: one statement, shown or run; and raw replies of the Cloud API.

use serde_json::json;

use super::{Desk, plan};
use crate::config::source;
use crate::ctl::act;
use crate::ctl::args::Global;
use crate::ctl::render::{WIDTH, wrap};
use crate::ctl::terminal::Terminal;
use crate::ctl::{CtlError, Done, Misuse};
use crate::pcr::debug;
use crate::pcr::settings::{SettingError, statement};
use crate::pcr::{Error, sql};

const VIRTUAL: &str = "On a virtualized cluster, as every replicated one is, settings of the storage layer count in the \
                       system virtual cluster only: set there they take effect, elsewhere they may be refused or do nothing.";

/// `settings`; without a value the setting goes back to its default.
pub(super) async fn run(
    terminal: &Terminal,
    global: &Global,
    setting: &str,
    value: Option<&str>,
    execute: bool,
    dry_run: bool,
) -> Result<Done, CtlError> {
    let statement = statement(setting, value).map_err(Error::from)?;
    if !execute {
        terminal.talk(&wrap(VIRTUAL, WIDTH).join("\n"))?;
        match terminal.json {
            true => terminal.result_json(&json!({ "statement": statement, "executed": false }))?,
            false => terminal.result(&statement)?,
        }
        return Ok(Done::Yes);
    }
    let endpoint = source::primary_endpoint().map_err(Misuse::from)?;
    let endpoint = endpoint.ok_or(Error::from(SettingError::NoEndpoint))?;
    let at = format!("running it at {} as {}", endpoint.address, endpoint.login.user);
    let plan = plan(at, vec![statement.clone(), VIRTUAL.to_owned()]);
    if dry_run {
        act::show_plan(terminal, &plan)?;
        return Ok(Done::Yes);
    }
    terminal.talk(&act::planned(&plan))?;
    if !act::agreed(terminal, global)? {
        terminal.talk("nothing was done")?;
        return Ok(Done::No);
    }
    let now = sql::set(&endpoint, &statement, setting).await?;
    let sentence = match &now {
        Some(now) => format!("{setting} is {now}"),
        None => format!("{setting} was set"),
    };
    match terminal.json {
        true => terminal.result_json(&json!({ "statement": statement, "executed": true, "value": now }))?,
        false => terminal.result(&sentence)?,
    }
    Ok(Done::Yes)
}

/// `debug`.
pub(super) async fn debug(desk: &Desk<'_>, path: Option<&str>) -> Result<Done, CtlError> {
    let paths = match path {
        Some(path) => vec![path.to_owned()],
        None => debug::paths(&desk.pair).await,
    };
    let mut all = Vec::new();
    for given in paths {
        let path = given.parse().map_err(|problem| Misuse::Path { given: given.clone(), problem })?;
        all.push(debug::raw(&desk.pair, &path, &given).await);
    }
    let heard = all.iter().any(|raw| raw.status.is_some());
    let well = all.iter().all(|raw| raw.status.is_some_and(|status| status < 400));
    if desk.terminal.json {
        desk.terminal.result_json(&all)?;
    } else {
        for raw in &all {
            let status = raw.status.map_or_else(|| "no reply".to_owned(), |status| status.to_string());
            let headers: String = raw.headers.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
            desk.terminal.result(&plain_lines(&format!("GET {}\n{status}\n{headers}\n{}\n", raw.path, raw.body)))?;
        }
    }
    Ok(match (heard, well) {
        (false, _) => Done::Misuse,
        (true, true) => Done::Yes,
        (true, false) => Done::No,
    })
}

/// A reply must not steer the terminal; its lines stay.
fn plain_lines(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { ' ' } else { c }).collect()
}
