//! Compares what applications were told with what the servers hold.

use super::cluster::Cluster;
use super::writer::{Acknowledged, Journal};
use std::collections::HashMap;

/// What must hold after the active side went from `old` to `new`, whatever happened in between.
#[derive(Debug)]
pub struct Checker<'a> {
    /// What applications were told.
    pub journal: &'a Journal,
    /// The side that is active now.
    pub new: &'a Cluster,
    /// The side that was; looked at when it runs.
    pub old: &'a Cluster,
}

impl Checker<'_> {
    /// Nothing that the new side acknowledged is lost; from its first row on nothing was sent to the old side; nobody
    /// was told 25006, and nobody got stuck.
    pub async fn never_two_primaries(&self) {
        let found = self.breaches().await;
        assert!(found.is_empty(), "{found:#?}");
    }

    /// Besides, not one acknowledged row stands only on the old side: planned switches and synchronous replication.
    pub async fn no_acknowledged_row_is_lost(&self) {
        let mut found = self.breaches().await;
        found.extend(self.losses().await);
        assert!(found.is_empty(), "{found:#?}");
    }

    /// Signs of two primaries.
    pub async fn breaches(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut say = |what: &str, rows: &[i64]| {
            if !rows.is_empty() {
                found.push(format!("{} rows {what}: {:?}", rows.len(), &rows[..rows.len().min(10)]));
            }
        };
        let (told, new, old) = (&self.journal.acknowledged, self.new.port, self.old.port);
        // A standby holds nothing of its own, and under synchronous replication it may show a row first.
        let alone = self.old.runs() && self.old.is_primary().await;
        let there = if alone { rows(self.old).await } else { HashMap::new() };
        let here = rows(self.new).await;
        say(
            "that the latched side acknowledged are lost",
            &ids(told, |r| r.server == new && !here.contains_key(&r.id)),
        );
        let Some(first) = told.iter().filter(|row| row.server == new).min_by_key(|row| row.at) else {
            return vec!["the new side acknowledged nothing".into()];
        };
        say(
            "were acknowledged by the old side when the new one served already",
            &ids(told, |r| r.server == old && r.at > first.at),
        );
        let late = there.into_iter().filter(|(id, sent)| *sent > first.sent_us && !here.contains_key(id));
        say("were sent to the old side after the cut", &late.map(|(id, _)| id).collect::<Vec<_>>());
        let told_never = |word: &str| word == "25006" || word.starts_with("stuck");
        let errors = self.journal.errors.iter().filter(|(word, _)| told_never(word));
        found.extend(errors.map(|(word, times)| format!("{times} times an application met: {word}")));
        found
    }

    /// Acknowledged rows that the new side does not have.
    pub async fn losses(&self) -> Option<String> {
        let here = rows(self.new).await;
        let lost = ids(&self.journal.acknowledged, |row| !here.contains_key(&row.id));
        (!lost.is_empty())
            .then(|| format!("{} acknowledged rows are lost: {:?}", lost.len(), &lost[..lost.len().min(10)]))
    }
}

fn ids(told: &[Acknowledged], which: impl Fn(&Acknowledged) -> bool) -> Vec<i64> {
    told.iter().filter(|row| which(row)).map(|row| row.id).collect()
}

/// Every row of a server: id and when the application sent it.
pub async fn rows(server: &Cluster) -> HashMap<i64, i64> {
    let found = server.client().await.query("SELECT id, sent_us FROM ledger", &[]).await.unwrap();
    found.iter().map(|row| (row.get(0), row.get(1))).collect()
}
