//! Reads Patroni in the pace the decision core orders, one reading at a time, and reports each with its times. What it
//! means is `failover::patroni`'s.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::ProbeReport;
use crate::failover::patroni::{Reading, Report};
use crate::net::resolve::Resolver;
use crate::patroni::model::{Cluster, Ended, Member};
use crate::patroni::{Client, Trouble};
use crate::types::{Now, Timeline};

/// Between two readings while something changes, where `interval` is longer.
const HASTE: Duration = Duration::from_millis(250);
/// Of what the members said, this many are told.
const MOST_TROUBLES: usize = 3;
/// A member's host is looked up again after this.
const HOST_AGE: Duration = Duration::from_secs(30);
/// And no longer than this.
const HOST_TIME: Duration = Duration::from_millis(500);

/// The way to a reader.
#[derive(Debug)]
pub(super) struct Orders {
    hastens: watch::Sender<bool>,
    at_once: mpsc::Sender<()>,
}

/// A reader's ears.
#[derive(Debug)]
pub(super) struct Ears {
    hastens: watch::Receiver<bool>,
    at_once: mpsc::Receiver<()>,
}

/// For a reader that does not run yet.
pub(super) fn channel() -> (Orders, Ears) {
    let (hastens, hastened) = watch::channel(false);
    // One that waits reads what all others would.
    let (at_once, asked) = mpsc::channel(1);
    (Orders { hastens, at_once }, Ears { hastens: hastened, at_once: asked })
}

impl Orders {
    pub(super) fn hasten(&self, hastens: bool) {
        self.hastens.send_if_modified(|now| std::mem::replace(now, hastens) != hastens);
    }

    pub(super) fn read_now(&self) {
        // Full: a reading is about to begin anyway.
        let _ = self.at_once.try_send(());
    }
}

/// Who reads, and what it needs for it.
pub(super) struct Reader {
    pub(super) client: Client,
    pub(super) interval: Duration,
    pub(super) resolver: Arc<Resolver>,
    pub(super) sender: mpsc::Sender<ProbeReport>,
    pub(super) clock: fn() -> Now,
}

/// Reads until `stop`.
pub(super) async fn run(reader: Reader, mut ears: Ears, stop: CancellationToken) {
    let _ = stop.run_until_cancelled(reader.read_on(&mut ears)).await;
}

/// Leader and timeline.
type Asked = (String, Option<Timeline>);

/// What is not asked for at every reading.
#[derive(Default)]
struct Known {
    /// The leader and timeline at which the history was asked, and its last line.
    history: Option<(Asked, Option<Ended>)>,
    /// When a host was looked up, and what it stood for.
    hosts: BTreeMap<String, (Instant, Vec<SocketAddr>)>,
}

impl Reader {
    async fn read_on(&self, ears: &mut Ears) {
        let mut known = Known::default();
        let mut next = Instant::now();
        loop {
            tokio::select! {
                asked = ears.at_once.recv() => if asked.is_none() { return },
                () = sleep_until(next) => {}
                changed = ears.hastens.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    next = next.min(Instant::now() + self.pause(*ears.hastens.borrow()));
                    continue;
                }
            }
            let started = (self.clock)();
            let result = self.read(&mut known).await;
            let report = Report { started: started.at, finished: (self.clock)().at, result };
            if self.sender.send(ProbeReport::Patroni(Box::new(report))).await.is_err() {
                return;
            }
            next = Instant::now() + self.pause(*ears.hastens.borrow());
        }
    }

    fn pause(&self, hastens: bool) -> Duration {
        if hastens { self.interval.min(HASTE) } else { self.interval }
    }

    async fn read(&self, known: &mut Known) -> Result<Reading, String> {
        let (via, cluster) = self.client.cluster().await.map_err(|troubles| told(&troubles))?;
        let (primary, addresses) = tokio::join!(self.primaries(&cluster), self.addresses(&cluster, &mut known.hosts));
        let now = cluster.leader().map(|leader| (leader.name.clone(), leader.timeline));
        if let Some(now) = now.filter(|now| known.history.as_ref().is_none_or(|(then, _)| then != now)) {
            // Asked again at the next change only: nobody decides by it.
            let lines = self.client.history(&via).await.unwrap_or_default();
            known.history = Some((now, lines.into_iter().last()));
        }
        let ended = known.history.as_ref().and_then(|(_, ended)| ended.clone());
        Ok(Reading { via, cluster, primary, addresses, ended })
    }

    /// The leader's own word; without a leader everybody's.
    async fn primaries(&self, cluster: &Cluster) -> BTreeMap<String, bool> {
        let wanted = |member: &&Member| cluster.leader().is_none_or(|leader| leader.name == member.name);
        let mut asked = JoinSet::new();
        for member in cluster.members.iter().filter(wanted) {
            let (Some(api), name, client) = (member.api.clone(), member.name.clone(), self.client.clone()) else {
                continue;
            };
            asked.spawn(async move { (name, client.is_primary(&api).await) });
        }
        let mut said = BTreeMap::new();
        while let Some(answer) = asked.join_next().await {
            if let Ok((name, Some(word))) = answer {
                said.insert(name, word);
            }
        }
        said
    }

    /// A name that is slow or resolves nowhere must not hold up every reading.
    async fn addresses(
        &self,
        cluster: &Cluster,
        hosts: &mut BTreeMap<String, (Instant, Vec<SocketAddr>)>,
    ) -> BTreeMap<String, Vec<SocketAddr>> {
        hosts.retain(|_, (asked, _)| asked.elapsed() < HOST_AGE);
        let mut found = BTreeMap::new();
        for member in &cluster.members {
            let Some(host) = &member.host else { continue };
            let name = host.to_string();
            if !hosts.contains_key(&name) {
                let answer = timeout(HOST_TIME, self.resolver.resolve(host)).await;
                hosts.insert(name.clone(), (Instant::now(), answer.ok().and_then(Result::ok).unwrap_or_default()));
            }
            if let Some((_, addresses)) = hosts.get(&name) {
                found.insert(member.name.clone(), addresses.clone());
            }
        }
        found
    }
}

fn told(troubles: &[Trouble]) -> String {
    let said: Vec<String> = troubles.iter().take(MOST_TROUBLES).map(ToString::to_string).collect();
    match said.as_slice() {
        [] => "there is no member to ask".to_owned(),
        said => said.join("; "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patroni::Cause;
    use crate::types::HostPort;

    fn unreachable(host: &str) -> Trouble {
        let address = HostPort { host: host.into(), port: 8008 };
        Trouble::Unreachable { address, cause: Cause::TimedOut }
    }

    #[test]
    fn what_every_member_said_is_told_but_not_of_a_hundred() {
        let all: Vec<Trouble> = ["db1", "db2", "db3", "db4"].into_iter().map(unreachable).collect();
        let said = told(&all);
        assert_eq!(said.matches("cannot be reached: no answer in time").count(), MOST_TROUBLES, "{said}");
        assert!(said.starts_with("db1:8008 cannot"), "{said}");
    }
}
