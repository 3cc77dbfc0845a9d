//! A standby that is being promoted, on a script: what its probe needs for the proof is there before it is needed.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use tokio::sync::Notify;

use super::*;
use crate::net::scripted::row;

#[tokio::test]
async fn who_was_about_to_be_promoted_shows_its_history_without_a_further_login() {
    let standby = Standby::start(Early::Lasts).await;
    let mut watch = standby.watch_while_another_side_dies().await;
    standby.promote();
    assert_eq!(watch.first_word_as_primary().await.history.map(|history| history.len()), Some(1));
    assert_eq!(standby.walsenders.load(SeqCst), 1);
}

#[tokio::test]
async fn a_connection_opened_early_that_did_not_last_is_replaced() {
    let standby = Standby::start(Early::Ends).await;
    let mut watch = standby.watch_while_another_side_dies().await;
    standby.promote();
    assert_eq!(watch.first_word_as_primary().await.history.map(|history| history.len()), Some(1));
    assert_eq!(standby.walsenders.load(SeqCst), 2);
}

#[tokio::test]
async fn in_calm_nothing_is_kept_open_for_a_promotion() {
    let standby = Standby::start(Early::Lasts).await;
    let watch = standby.watch_while_another_side_dies().await;
    watch.probes.set_cadence(Cadence::Calm);
    standby.walsender_left.notified().await;
}

/// What becomes of the replication connection that is opened before the promotion.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Early {
    /// It lasts, and who is promoted lets in nobody more: it is busy.
    Lasts,
    /// The promotion ends it.
    Ends,
}

/// `b0`, system 5, on timeline 2 once it is promoted.
struct Standby {
    early: Early,
    server: std::sync::OnceLock<Scripted>,
    promoted: AtomicBool,
    promotion: Notify,
    /// Replication connections so far.
    walsenders: AtomicUsize,
    walsender_came: Notify,
    walsender_left: Notify,
}

impl Standby {
    async fn start(early: Early) -> Arc<Self> {
        let standby = Arc::new(Self {
            early,
            server: std::sync::OnceLock::new(),
            promoted: AtomicBool::new(false),
            promotion: Notify::new(),
            walsenders: AtomicUsize::new(0),
            walsender_came: Notify::new(),
            walsender_left: Notify::new(),
        });
        let script = Arc::downgrade(&standby);
        let server = Scripted::start(move |peer| {
            let standby = script.upgrade();
            async move {
                if let Some(standby) = standby {
                    standby.serve(peer).await;
                }
            }
        });
        let _ = standby.server.set(server.await);
        standby
    }

    /// Returns when a replication connection to it was opened.
    async fn watch_while_another_side_dies(&self) -> Watch {
        let mut watch = Watch::start(&[self.server.get().unwrap().address], sql());
        assert!(matches!(watch.observation().await.verdict, Verdict::Answered(_)));
        watch.probes.set_active(Some("another".into()), Epoch(1));
        watch.probes.set_cadence(Cadence::Episode);
        let soon = Instant::now() + Duration::from_secs(10);
        timeout_at(soon, self.walsender_came.notified()).await.expect("a replication connection before the promotion");
        watch
    }

    fn promote(&self) {
        self.promoted.store(true, SeqCst);
        self.promotion.notify_waiters();
    }

    async fn serve(&self, mut peer: Peer) {
        let late = self.promoted.load(SeqCst);
        let packet = String::from_utf8_lossy(&peer.first_packet().await).into_owned();
        if late && self.early == Early::Lasts {
            return peer.hang().await;
        }
        peer.say(&[message(b'R', &[0; 4]), ready()].concat()).await;
        if !packet.contains("replication\0") {
            return self.converse(&mut peer).await;
        }
        self.walsenders.fetch_add(1, SeqCst);
        self.walsender_came.notify_one();
        tokio::select! {
            () = self.promotion.notified(), if self.early == Early::Ends => {}
            () = self.converse(&mut peer) => self.walsender_left.notify_one(),
        }
    }

    async fn converse(&self, peer: &mut Peer) {
        loop {
            let (kind, text) = peer.message().await;
            if kind != b'Q' {
                return;
            }
            let text = String::from_utf8_lossy(&text);
            let answer = match self.promoted.load(SeqCst) {
                _ if text.starts_with("IDENTIFY_SYSTEM") => row(&[Some("5"), Some("2"), Some("0/4000000"), None]),
                _ if text.starts_with("TIMELINE_HISTORY") => {
                    row(&[Some("00000002.history"), Some("1\t0/3000158\tno recovery target specified\n")])
                }
                true => row_of("f|5|00000002|0/4000000|~|10.0.0.1:5432|1|0|~|~|~|~|~|~|0|~|t||~|~|~|~|on"),
                false => row_of("t|5|~|0/3000158|0/3000158|10.0.0.1:5432|1|0|~|~|~|~|~|~|60000|t|t||~|~|~|~|on"),
            };
            peer.say(&[answer, ready()].concat()).await;
        }
    }
}

impl Watch {
    async fn first_word_as_primary(&mut self) -> Facts {
        loop {
            if let Verdict::Answered(facts) = self.observation().await.verdict
                && facts.role == Role::Primary
            {
                return *facts;
            }
        }
    }
}
