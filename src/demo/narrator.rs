//! What the daemon tells of its decisions while they happen: its live events, read as any program would. The demo of
//! clusters shows them, because there a failover takes long enough to be watched. Prints nothing.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Before the next attempt: the daemon is still on its way up.
const RETRY: Duration = Duration::from_millis(100);
/// The start of a line of an event that holds its fields.
const DATA: &str = "data: ";

/// The fields that are told.
#[derive(Debug, Deserialize)]
struct Told {
    kind: String,
    sentence: String,
}

/// What counts of the status.
#[derive(Debug, Deserialize)]
struct State {
    services: Vec<Armed>,
}

#[derive(Debug, Deserialize)]
struct Armed {
    armed: bool,
}

/// What an event that has begun is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Event,
    Status,
    Other,
}

/// Hands on every sentence until it is stopped or nobody listens any more.
pub(super) async fn run(admin: SocketAddr, sentences: mpsc::Sender<String>, stop: CancellationToken) {
    let listen = async {
        while !sentences.is_closed() {
            // A daemon that is gone ends the demo elsewhere.
            let _ = follow(admin, &sentences).await;
            sleep(RETRY).await;
        }
    };
    let _ = stop.run_until_cancelled(listen).await;
}

async fn follow(admin: SocketAddr, sentences: &mpsc::Sender<String>) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(admin).await?;
    // In HTTP/1.0 nothing comes in chunks.
    stream.write_all(format!("GET /events HTTP/1.0\r\nhost: {admin}\r\n\r\n").as_bytes()).await?;
    let mut lines = BufReader::new(stream).lines();
    let (mut kind, mut armed) = (Kind::Other, false);
    while let Some(line) = lines.next_line().await? {
        let Some(data) = line.strip_prefix(DATA) else {
            kind = match line.as_str() {
                "event: event" => Kind::Event,
                "event: status" => Kind::Status,
                _ => Kind::Other,
            };
            continue;
        };
        let sentence = match kind {
            Kind::Event => worth_telling(data),
            Kind::Status => {
                let before = std::mem::replace(&mut armed, is_armed(data));
                (armed && !before).then(|| "armed: the standby can take over from now on".to_owned())
            }
            Kind::Other => None,
        };
        if let Some(sentence) = sentence
            && sentences.send(sentence).await.is_err()
        {
            break;
        }
    }
    Ok(())
}

fn is_armed(status: &str) -> bool {
    let state: Result<State, _> = serde_json::from_str(status);
    state.is_ok_and(|state| state.services.iter().all(|service| service.armed))
}

/// Phases are told by their steps, but for the first: something is wrong.
fn worth_telling(data: &str) -> Option<String> {
    let told: Told = serde_json::from_str(data).ok()?;
    let tells = match told.kind.as_str() {
        "phase" => told.sentence.contains("→ suspect"),
        "started" | "command" => false,
        _ => true,
    };
    tells.then_some(told.sentence)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn that_it_is_armed_and_decisions_and_steps_are_told_and_what_they_imply_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let admin = listener.local_addr().unwrap();
        let (sender, mut told) = mpsc::channel(8);
        let stop = CancellationToken::new();
        let narrator = tokio::spawn(run(admin, sender, stop.clone()));
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 256];
        let read = stream.read(&mut request).await.unwrap();
        assert!(request[..read].starts_with(b"GET /events HTTP/1.0\r\nhost: 127.0.0.1:"));
        let event = |kind: &str, sentence: &str| {
            format!("id: 1\nevent: event\ndata: {{\"kind\":\"{kind}\",\"sentence\":\"{sentence}\"}}\n\n")
        };
        let status = |armed: bool| format!("event: status\ndata: {{\"services\":[{{\"armed\":{armed}}}]}}\n\n");
        let text = [
            "HTTP/1.0 200 OK\r\n\r\nevent: other\ndata: {\"kind\":\"step\",\"sentence\":\"no event\"}\n\n",
            &status(false),
            &status(true),
            &status(true),
            &event("phase", "steady → suspect: first adverse evidence"),
            &event("phase", "suspect → confirming: the threshold is reached"),
            &event("decided", "episode 2: failover"),
        ];
        stream.write_all(text.concat().as_bytes()).await.unwrap();
        assert_eq!(told.recv().await.unwrap(), "armed: the standby can take over from now on");
        assert_eq!(told.recv().await.unwrap(), "steady → suspect: first adverse evidence");
        assert_eq!(told.recv().await.unwrap(), "episode 2: failover");
        stop.cancel();
        narrator.await.unwrap();
    }
}
