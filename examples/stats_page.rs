//! Serves sample views on the admin server, to look at the page: `cargo run --example stats_page [SAMPLE] [ADDRESS]`.
//! Without SAMPLE it shows one after the other, five seconds each. Nothing behind it is real.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use arc_swap::ArcSwap;
use pgpivot::admin::{AdminState, ServiceEvent, Settings, serve};
use pgpivot::failover::action::Refusal;
use pgpivot::view::Status;
use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::CancellationToken;

const SAMPLES: [&str; 6] = ["steady", "suspect", "promoting", "blocked", "quarantined", "exhausted"];

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let sample = arguments.next().filter(|s| s != "all");
    let listen = arguments.next().unwrap_or_else(|| "127.0.0.1:8404".to_owned()).parse()?;
    let samples = match &sample {
        Some(name) => vec![load(name)?],
        None => SAMPLES.iter().map(|name| load(name)).collect::<anyhow::Result<_>>()?,
    };
    let status = Arc::new(ArcSwap::from_pointee(samples[0].clone()));
    let (commands, mut asked) = mpsc::channel(4);
    let events: Vec<ServiceEvent> = read("events.json")?;
    let state = AdminState {
        status: Arc::clone(&status),
        commands,
        events: broadcast::channel(16).0,
        history: Arc::new(move |_, limit| {
            events.iter().take(limit).filter_map(|e| serde_json::to_value(e).ok()).collect()
        }),
        ready: Arc::new(|| Ok(())),
        live: Arc::new(|| Ok(())),
    };
    let settings = Settings { listen: Some(listen), ..Settings::default() };
    let admin = serve(&settings, state, CancellationToken::new())?;
    std::thread::spawn(move || {
        while let Some(command) = asked.blocking_recv() {
            let sentence = "this is a sample, nothing stands behind it".to_owned();
            let _ = command.reply.send(Err(Refusal { code: "sample".to_owned(), sentence }));
        }
    });
    for (turn, sample) in samples.iter().cycle().enumerate() {
        let (mut next, now) = (sample.clone(), status.load().at);
        if turn > 0 {
            next.at = now.plus(Duration::from_secs(5));
        }
        status.store(Arc::new(next));
        std::thread::sleep(Duration::from_secs(5));
        anyhow::ensure!(!admin.is_finished(), "the admin thread ended");
    }
    Ok(())
}

fn load(name: &str) -> anyhow::Result<Status> {
    read(&format!("{name}.json"))
}

fn read<T: serde::de::DeserializeOwned>(file: &str) -> anyhow::Result<T> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/samples/status").join(file);
    let text = std::fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{}", path.display()))
}
