//! Which services share a machine, and which kept state is theirs. A pair is the servers, not a name: services may be
//! renamed or change places in the file without losing the latch. Pairs that turn out to be the same servers under other
//! names meet in `siblings`.

use std::collections::HashMap;

use crate::config::Service;
use crate::failover::phase::Record;
use crate::types::BackendName;

/// Services with the same backends, and the state they go on from.
#[derive(Debug)]
pub(super) struct Pair {
    /// What its state and history are kept under: the name of the service that was first when it was first kept.
    pub(super) key: String,
    pub(super) services: Vec<Service>,
    pub(super) record: Record,
}

/// What was made of the kept state.
#[derive(Debug)]
pub(super) struct Claimed {
    pub(super) pairs: Vec<Pair>,
    /// One sentence each.
    pub(super) said: Vec<String>,
}

/// Services with the same backends, in the order of the configuration.
pub(super) fn group(services: &[Service]) -> Vec<Vec<Service>> {
    let mut groups: Vec<Vec<Service>> = Vec::new();
    for service in services {
        match groups.iter_mut().find(|group| group[0].backends == service.backends) {
            Some(group) => group.push(service.clone()),
            None => groups.push(vec![service.clone()]),
        }
    }
    groups
}

/// The groups of a new configuration of the same services. Who shares a machine is settled at the start, since latch
/// and history are the pair's: `Err` when that would change.
pub(super) fn regroup(old: &[Service], new: &[Service]) -> Result<Vec<Vec<Service>>, String> {
    let names = |group: &[Service]| group.iter().map(|service| service.name.clone()).collect::<Vec<_>>();
    let before: Vec<_> = group(old).iter().map(|group| names(group)).collect();
    let groups = group(new);
    for group in &groups {
        let first = &group[0].name;
        let (now, then) =
            (names(group), before.iter().find(|names| names.contains(first)).cloned().unwrap_or_default());
        let came = now.iter().find(|name| !then.contains(name)).map(|name| (name, "would share its backends with"));
        let left =
            then.iter().find(|name| !now.contains(name)).map(|name| (name, "would no longer share its backends with"));
        if let Some((name, what)) = came.or(left) {
            return Err(format!("{name} {what} {first}, and that takes a restart: they have one latch"));
        }
    }
    Ok(groups)
}

/// Gives each group of services its kept record: the one under the name of one of them, else the only one left over
/// that names one of its backends as active. `Err`: two records contradict each other.
pub(super) fn claim(services: &[Service], mut records: HashMap<String, Record>) -> Result<Claimed, String> {
    let mut pairs = Vec::new();
    for services in group(services) {
        let mut own: Vec<(String, Record)> =
            services.iter().filter_map(|service| records.remove_entry(service.name.as_str())).collect();
        own.retain(|(_, record)| *record != Record::default());
        if let Some((a, b)) = contradiction(&own) {
            return Err(b_against_a(a, b));
        }
        // Of records that agree, the newest.
        let newest = own.into_iter().max_by_key(|(_, record)| (epoch(record), record.last_episode));
        let (key, record) = newest.unwrap_or_else(|| (services[0].name.as_str().to_owned(), Record::default()));
        pairs.push(Pair { key, services, record });
    }
    records.retain(|_, record| *record != Record::default());
    let mut said = Vec::new();
    let mut left: Vec<(String, Record)> = records.into_iter().collect();
    left.sort_by(|(a, _), (b, _)| a.cmp(b));
    for (key, record) in &left {
        let mut fits: Vec<&mut Pair> = pairs.iter_mut().filter(|pair| fits(pair, record)).collect();
        let rivals = left.iter().filter(|(_, other)| fits.iter().any(|pair| self::fits(pair, other))).count();
        match fits.as_mut_slice() {
            [pair] if rivals == 1 => {
                let name = &pair.services[0].name;
                said.push(format!("service {name} goes on from the state of {key}, which had its backends"));
                (pair.key, pair.record) = (key.clone(), record.clone());
            }
            _ => said.push(format!(
                "the state of {key}{} belongs to no service of this configuration; it is kept and not used",
                latched(record)
            )),
        }
    }
    Ok(Claimed { pairs, said })
}

/// A pair without a record of its own that has both the backends the record speaks of.
fn fits(pair: &Pair, record: &Record) -> bool {
    let has = |name: &BackendName| pair.services[0].backends.iter().any(|backend| backend.name == *name);
    let active = record.latch.as_ref().map(|latch| &latch.active);
    let target = record.intent.as_ref().map(|intent| &intent.to);
    pair.record == Record::default() && active.or(target).is_some() && [active, target].into_iter().flatten().all(has)
}

type Kept = (String, Record);

fn contradiction(own: &[Kept]) -> Option<(&Kept, &Kept)> {
    let active = |(_, record): &Kept| record.latch.as_ref().map(|latch| latch.active.clone());
    let open = own.iter().find(|(_, record)| record.intent.is_some());
    let other = |one: &Kept| own.iter().find(|other| other.0 != one.0);
    match open.and_then(|open| Some((open, other(open)?))) {
        Some(both) => Some(both),
        None => own.iter().skip(1).find(|kept| active(kept) != active(&own[0])).map(|kept| (&own[0], kept)),
    }
}

fn b_against_a((a, first): &Kept, (b, second): &Kept) -> String {
    format!(
        "services {a} and {b} share their backends now, but each kept a state of its own: {a}{}, {b}{}. Give {b} other \
         backends, or move the files of the one that is wrong out of the state directory",
        latched(first),
        latched(second)
    )
}

fn epoch(record: &Record) -> u64 {
    record.latch.as_ref().map_or(0, |latch| latch.epoch.0)
}

fn latched(record: &Record) -> String {
    match (&record.latch, &record.intent) {
        (_, Some(intent)) => format!(" (episode {} to {} is open)", intent.id, intent.to),
        (Some(latch), None) => format!(" ({} active in epoch {})", latch.active, latch.epoch),
        (None, None) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{env::Env, raw, validate};

    const EAST: &str = r#"backend = [
        { name = "east", addresses = ["192.0.2.1:5432"], role = "primary" },
        { name = "west", addresses = ["192.0.2.2:5432"], role = "standby" } ]"#;
    const NORTH: &str = r#"backend = [
        { name = "north", addresses = ["192.0.2.3:5432"], role = "primary" },
        { name = "south", addresses = ["192.0.2.4:5432"], role = "standby" } ]"#;

    fn services(named: &[(&str, &str)]) -> Vec<Service> {
        let tables =
            named.iter().map(|(name, backends)| format!("[service.{name}]\nkind = \"postgres\"\n{backends}\n"));
        validate::build(raw::parse(&tables.collect::<String>()), &Env::default(), 2).unwrap().0.services
    }

    fn kept(all: &[(&str, &str, u64)]) -> HashMap<String, Record> {
        let record = |active: &str, epoch| {
            serde_json::from_value(serde_json::json!({ "latch": {
                "active": active, "epoch": epoch, "identity": null, "since": 0, "why": "", "route_only": false },
                "intent": null, "last_episode": epoch, "spent": [], "cooldown_until": null, "paused": null,
                "other_daemon_seen": null }))
        };
        all.iter().map(|(key, active, epoch)| ((*key).to_owned(), record(active, *epoch).unwrap())).collect()
    }

    fn keys(claimed: &Claimed) -> Vec<(&str, u64)> {
        claimed.pairs.iter().map(|pair| (pair.key.as_str(), epoch(&pair.record))).collect()
    }

    #[test]
    fn services_that_change_places_in_the_file_keep_the_latch() {
        let both = services(&[("reports", EAST), ("main", EAST), ("other", NORTH)]);
        let claimed = claim(&both, kept(&[("main", "west", 7), ("other", "north", 2)])).unwrap();
        assert_eq!(keys(&claimed), [("main", 7), ("other", 2)]);
        assert!(claimed.said.is_empty(), "{:?}", claimed.said);
    }

    #[test]
    fn a_renamed_service_keeps_the_latch() {
        let claimed = claim(&services(&[("billing", EAST), ("other", NORTH)]), kept(&[("main", "west", 7)])).unwrap();
        assert_eq!(keys(&claimed), [("main", 7), ("other", 0)]);
        assert_eq!(claimed.said, ["service billing goes on from the state of main, which had its backends"]);
    }

    #[test]
    fn a_state_that_could_belong_to_nobody_is_named_and_left_alone() {
        let claimed = claim(&services(&[("main", EAST)]), kept(&[("gone", "north", 3)])).unwrap();
        assert_eq!(keys(&claimed), [("main", 0)]);
        assert!(claimed.said[0].contains("the state of gone (north active in epoch 3)"), "{:?}", claimed.said);
    }

    #[test]
    fn a_reload_may_change_servers_but_not_who_shares_them() {
        let (both, parted) =
            (services(&[("main", EAST), ("reports", EAST)]), services(&[("main", EAST), ("reports", NORTH)]));
        assert_eq!(regroup(&both, &services(&[("main", NORTH), ("reports", NORTH)])).unwrap().len(), 1);
        let error = regroup(&both, &parted).unwrap_err();
        assert!(error.contains("reports would no longer share its backends with main"), "{error}");
        let error = regroup(&parted, &both).unwrap_err();
        assert!(error.contains("reports would share its backends with main"), "{error}");
    }

    #[test]
    fn two_services_that_came_to_share_their_servers_may_not_contradict_each_other() {
        let both = services(&[("main", EAST), ("reports", EAST)]);
        let claimed = claim(&both, kept(&[("main", "east", 3), ("reports", "east", 5)])).unwrap();
        assert_eq!(keys(&claimed), [("reports", 5)]);
        let error = claim(&both, kept(&[("main", "east", 3), ("reports", "west", 5)])).unwrap_err();
        assert!(error.contains("main (east active in epoch 3), reports (west active in epoch 5)"), "{error}");
    }
}
