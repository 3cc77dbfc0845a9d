//! Standbys that a change of the active side leaves behind: who follows the new primary, who still has to be pointed at
//! it, and who cannot follow any more. Functions over what was heard.

use super::analysis;
use super::observation::{Ancestor, Facts, Receiver, Role};
use super::phase::Identity;
use super::side::Side;
use crate::types::{BackendName, Epoch, HostPort, Lsn, SystemId, Timeline};

/// From whom a standby last streamed, kept when the stream is gone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Upstream {
    /// On this timeline.
    pub timeline: Option<Timeline>,
    /// As the standby names it.
    pub sender: Option<String>,
    /// As its upstream lists it: what `synchronous_standby_names` is compared with.
    pub application_name: Option<String>,
}

impl Upstream {
    /// Takes what a standby shows; who became primary has none.
    pub fn note(known: &mut Option<Self>, facts: &Facts) {
        match (&facts.receiver, facts.role) {
            (_, Role::Primary) => {
                *known = known.take().map(|was| Self { application_name: was.application_name, ..Self::default() })
            }
            (Receiver::Row(row), _) if row.streaming => {
                let before = known.take().and_then(|was| was.application_name);
                let application_name = row.application_name.clone().or(before);
                *known = Some(Self { timeline: row.timeline, sender: row.sender.clone(), application_name });
            }
            _ => {}
        }
    }
}

/// How a standby stands to the active side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It streams on the latched timeline.
    Follows,
    /// It streams, or did last, from another standby, and follows where that one does.
    Cascades(BackendName),
    /// It lost its stream on the latched timeline, or streams from the active side and will hear of the timeline.
    Returns,
    /// It follows the line that was left, and can go on along the new one.
    Adrift(String),
    /// What it has does not lead to the latched line.
    Orphan(String),
    /// It does not show enough.
    Unknown(String),
}

impl Standing {
    /// The word in view and metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Follows => "follower",
            Self::Cascades(_) => "cascade",
            Self::Returns => "returning",
            Self::Adrift(_) => "adrift",
            Self::Orphan(_) => "orphan",
            Self::Unknown(_) => "unknown",
        }
    }

    /// One sentence.
    pub fn sentence(&self, name: &BackendName, active: &BackendName) -> String {
        match self {
            Self::Follows => format!("{name} follows {active}"),
            Self::Cascades(above) => format!("{name} streams from {above}, below {active}"),
            Self::Returns => format!("{name} waits for its stream from {active}"),
            Self::Adrift(why) | Self::Orphan(why) | Self::Unknown(why) => why.clone(),
        }
    }
}

/// Every standby but the active side; `None` for who says that it is none, or was never heard.
pub fn standing(side: &Side, sides: &[Side], active: &BackendName, identity: &Identity) -> Option<Standing> {
    let facts = &side.facts.as_ref()?.facts;
    if side.name == *active || facts.role != Role::Standby {
        return None;
    }
    let name = &side.name;
    if facts.system_id.is_some_and(|id| id != identity.system_id) {
        return Some(Standing::Orphan(format!(
            "{name} belongs to another system than {active}; rebuild it from {active}"
        )));
    }
    let row = match &facts.receiver {
        Receiver::Row(row) if row.streaming => Some(row),
        Receiver::Row(_) | Receiver::Gone => None,
        Receiver::Unknown => {
            return Some(Standing::Unknown(format!("whom {name} follows cannot be seen: GRANT pg_read_all_stats")));
        }
    };
    let (timeline, sender) = match (row, &side.upstream) {
        (Some(row), _) => (row.timeline, row.sender.as_deref()),
        (None, Some(last)) => (last.timeline, last.sender.as_deref()),
        (None, None) => (None, None),
    };
    let above = above(side, sides, active, sender);
    if timeline == Some(identity.timeline) {
        return Some(match (above, row) {
            (Some(above), _) => Standing::Cascades(above),
            (None, Some(_)) => Standing::Follows,
            (None, None) => Standing::Returns,
        });
    }
    if let Err(why) = may_go_on(side, facts, timeline, active, identity) {
        return Some(Standing::Orphan(why));
    }
    let from_active = sides.iter().find(|side| side.name == *active).zip(sender);
    if from_active.is_some_and(|(active, sender)| analysis::is_at(active, sender)) {
        return Some(Standing::Returns);
    }
    Some(match above {
        Some(above) => Standing::Cascades(above),
        None => {
            let on = timeline.map_or("the line that was left".into(), |timeline| format!("timeline {timeline}"));
            let gone = if row.is_none() { " and has no stream" } else { "" };
            Standing::Adrift(format!(
                "{name} is on {on}{gone}: it does not follow {active} on timeline {}",
                identity.timeline
            ))
        }
    })
}

/// Another standby that it streams from.
fn above(side: &Side, sides: &[Side], active: &BackendName, sender: Option<&str>) -> Option<BackendName> {
    let sender = sender?;
    let is = |other: &&Side| {
        other.name != side.name
            && other.name != *active
            && other.role() == Role::Standby
            && analysis::is_at(other, sender)
    };
    sides.iter().find(is).map(|other| other.name.clone())
}

/// Does the latched line run through where this standby stands? What was replayed counts: what was only received beyond
/// may be an unfinished record.
fn may_go_on(
    side: &Side,
    facts: &Facts,
    timeline: Option<Timeline>,
    active: &BackendName,
    identity: &Identity,
) -> Result<(), String> {
    let name = &side.name;
    let rebuild = format!("rebuild it with pg_rewind or pg_basebackup from {active}");
    let Some(timeline) = timeline else { return Ok(()) };
    let Some(switched) = left_at(identity, timeline) else {
        return Err(format!(
            "{name} is on timeline {timeline}, which does not lead to timeline {} of {active}; {rebuild}",
            identity.timeline
        ));
    };
    match facts.replay_lsn {
        Some(at) if at > switched => Err(format!(
            "{name} stands at {at}, {} bytes beyond where timeline {} left timeline {timeline} ({switched}): it has what {active} never had; {rebuild}",
            switched.behind(at),
            identity.timeline
        )),
        _ => Ok(()),
    }
}

/// Where the latched line left this timeline, if it runs through it.
pub fn left_at(identity: &Identity, timeline: Timeline) -> Option<Lsn> {
    identity.ancestors.iter().find(|ancestor| ancestor.timeline == timeline).map(|ancestor| ancestor.switch_lsn)
}

/// What a superuser types on a standby to point it at `place`.
pub fn to_type(name: &BackendName, place: &HostPort) -> String {
    format!(
        "on {name}, with host={} port={} in the primary_conninfo that it has, type: ALTER SYSTEM SET primary_conninfo = '…'; SELECT pg_reload_conf();",
        place.host, place.port
    )
}

/// Which standby, and where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repoint {
    /// The latch that it follows from.
    pub epoch: Epoch,
    /// The standby.
    pub backend: BackendName,
    /// The new primary.
    pub primary: BackendName,
    /// Where other servers reach that one.
    pub address: HostPort,
    /// Of the pair.
    pub system_id: SystemId,
    /// The latched timeline.
    pub timeline: Timeline,
    /// Its ancestors, oldest first.
    pub ancestors: Vec<Ancestor>,
}

impl Repoint {
    /// May a standby that has replayed up to `at` on `from` go on along the latched line? The refusal says why not.
    pub fn allows(&self, from: Timeline, at: Option<Lsn>) -> Result<(), String> {
        if from == self.timeline {
            return Ok(());
        }
        let Some(left) = self.ancestors.iter().find(|ancestor| ancestor.timeline == from) else {
            return Err(format!("it is on timeline {from}, which does not lead to timeline {}", self.timeline));
        };
        match at {
            Some(at) if at > left.switch_lsn => Err(format!(
                "it stands at {at}, beyond where timeline {} left timeline {from} ({})",
                self.timeline, left.switch_lsn
            )),
            _ => Ok(()),
        }
    }
}
