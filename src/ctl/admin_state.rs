//! `backend` without a state: who takes newcomers, and who does not by whose order.

use serde_json::{Value, json};

use super::api::Api;
use super::args::Place;
use super::render::{Paint, plain, table, wall};
use super::terminal::Terminal;
use super::{CtlError, Done, Misuse, services};
use crate::view::{AdminStatus, BackendStatus, EndpointStatus, Level, ServiceStatus};

pub(super) async fn show(
    api: &Api,
    terminal: &Terminal,
    service: Option<&str>,
    place: Option<&Place>,
) -> Result<Done, CtlError> {
    let status = api.status().await?;
    let chosen = services(&status, service)?;
    let lines = lines(&chosen, place);
    if let (Some(place), true) = (place, lines.is_empty()) {
        let names = chosen.iter().flat_map(|s| &s.backends);
        let known =
            names.flat_map(|b| std::iter::once(b.name.to_string()).chain(b.endpoints.iter().map(|e| named(b, e))));
        let asked = match &place.address {
            Some(address) => format!("{}/{address}", place.backend),
            None => place.backend.clone(),
        };
        return Err(Misuse::UnknownBackend { asked, known: known.collect() }.into());
    }
    match terminal.json {
        true => lines.iter().try_for_each(|line| terminal.result_json(&line.json()))?,
        false => terminal.result(&render(&lines, terminal.paint))?,
    }
    Ok(Done::Yes)
}

/// A backend, or an address of one.
struct Line<'a> {
    service: &'a ServiceStatus,
    backend: &'a BackendStatus,
    endpoint: Option<&'a EndpointStatus>,
}

fn lines<'a>(services: &[&'a ServiceStatus], place: Option<&Place>) -> Vec<Line<'a>> {
    let mut lines = Vec::new();
    for &service in services {
        for backend in service.backends.iter().filter(|b| place.is_none_or(|p| p.backend == b.name.as_str())) {
            let asked = place.and_then(|place| place.address.as_ref());
            let is_it = |e: &&EndpointStatus| {
                asked.is_none_or(|asked| e.address.as_ref() == Some(asked) || e.ip.to_string() == asked.to_string())
            };
            if asked.is_none() {
                lines.push(Line { service, backend, endpoint: None });
            }
            let endpoints = backend.endpoints.iter().filter(is_it);
            lines.extend(endpoints.map(|endpoint| Line { service, backend, endpoint: Some(endpoint) }));
        }
    }
    lines
}

fn named(backend: &BackendStatus, endpoint: &EndpointStatus) -> String {
    format!("{}/{}", backend.name, endpoint.ip)
}

impl Line<'_> {
    fn state(&self) -> &str {
        self.endpoint.map_or_else(|| self.backend.admin_state(), |endpoint| self.backend.admin_state_of(endpoint))
    }

    /// The order behind it.
    fn order(&self) -> Option<&AdminStatus> {
        self.backend.admin.as_ref().or_else(|| self.endpoint?.admin.as_ref())
    }

    fn name(&self) -> String {
        self.endpoint.map_or_else(|| self.backend.name.to_string(), |endpoint| named(self.backend, endpoint))
    }

    fn health(&self) -> &str {
        self.endpoint.map_or(&self.backend.health, |endpoint| &endpoint.health)
    }

    fn connections(&self) -> u64 {
        self.endpoint.map_or(self.backend.connections, |endpoint| endpoint.connections)
    }

    fn json(&self) -> Value {
        json!({
            "service": self.service.name, "backend": self.backend.name, "address": self.endpoint.map(|e| e.ip),
            "state": self.state(), "order": self.order(), "health": self.health(), "connections": self.connections(),
        })
    }
}

fn render(lines: &[Line<'_>], paint: Paint) -> String {
    let row = |line: &Line<'_>| {
        let level = if line.state() == "ready" { Level::Ok } else { Level::Warn };
        let by = line.order().map_or_else(
            || "-".to_owned(),
            |order| {
                let note = order.note.as_ref().map_or_else(String::new, |note| format!(" ({note})"));
                format!("{}{note}, {}", order.by, wall(order.since))
            },
        );
        vec![
            (line.name(), None),
            (line.state().to_owned(), Some(level)),
            (line.health().to_owned(), None),
            (line.connections().to_string(), None),
            (plain(&by), None),
        ]
    };
    let rows: Vec<_> = lines.iter().map(row).collect();
    table(paint, &["BACKEND", "STATE", "HEALTH", "OPEN", "SET BY"], &rows)
}
