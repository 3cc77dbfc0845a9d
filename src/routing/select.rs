//! Who takes a newcomer: role → tier → smooth weighted round robin → endpoints by least connections.
//! Pure: the same candidates and the same history give the same choice.

use std::net::SocketAddr;

use crate::config::Target;
use crate::failover::action::OpenBackend;
use crate::types::BackendName;

/// The backends among which weight decides, for one newcomer.
///
/// On an `active` listener that is the tier and nobody else. On a `read_only` one the fit readers, and the active
/// side when there is none. Who has no address, or was tried in vain, is not fit. Weight 0 means "only when nobody
/// else is left of this tier" for the tier, since a service must not stop over it, and "never" for a reader.
pub fn candidates<'a>(
    target: Target,
    active: &BackendName,
    tier: &'a [OpenBackend],
    readers: &'a [OpenBackend],
    tried: &[BackendName],
) -> Vec<&'a OpenBackend> {
    let fit = |backend: &&OpenBackend| !backend.addresses.is_empty() && !tried.contains(&backend.name);
    let weighty = |backend: &&OpenBackend| backend.weight > 0;
    if target == Target::ReadOnly {
        let readers: Vec<_> = readers.iter().filter(fit).filter(weighty).collect();
        if !readers.is_empty() {
            return readers;
        }
        return tier.iter().filter(|backend| backend.name == *active).filter(fit).collect();
    }
    let mut tier: Vec<_> = tier.iter().filter(fit).collect();
    if tier.iter().any(weighty) {
        tier.retain(weighty);
    }
    tier
}

/// Smooth weighted round robin: each turn every backend gains its weight, the richest is chosen and pays the sum.
/// Shares are exact over every full round, and a heavy backend's turns are spread out.
#[derive(Debug, Default)]
pub struct Rotation {
    credits: Vec<(BackendName, i64)>,
}

impl Rotation {
    /// The index of the next of `candidates`; `None` when there is none. Who comes back after an absence starts
    /// from zero, so it is not flooded.
    pub fn next(&mut self, candidates: &[&OpenBackend]) -> Option<usize> {
        self.credits.retain(|(name, _)| candidates.iter().any(|candidate| candidate.name == *name));
        // All zero = all alike.
        let alike = candidates.iter().all(|candidate| candidate.weight == 0);
        let weight = |candidate: &OpenBackend| if alike { 1 } else { i64::from(candidate.weight) };

        let mut richest: Option<(usize, i64)> = None;
        for (index, candidate) in candidates.iter().enumerate() {
            let credit = self.credit(&candidate.name);
            *credit += weight(candidate);
            if richest.is_none_or(|(_, most)| *credit > most) {
                richest = Some((index, *credit));
            }
        }
        let (index, _) = richest?;
        let sum: i64 = candidates.iter().map(|candidate| weight(candidate)).sum();
        *self.credit(&candidates.get(index)?.name) -= sum;
        Some(index)
    }

    fn credit(&mut self, name: &BackendName) -> &mut i64 {
        let index = self.credits.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
            self.credits.push((name.clone(), 0));
            self.credits.len() - 1
        });
        &mut self.credits[index].1
    }
}

/// The order in which a backend's addresses are dialled: fewest connections first, ties in the given order.
pub fn by_least_connections(addresses: &[SocketAddr], live: impl Fn(&SocketAddr) -> u64) -> Vec<SocketAddr> {
    let mut order: Vec<(u64, SocketAddr)> = addresses.iter().map(|address| (live(address), *address)).collect();
    order.sort_by_key(|(live, _)| *live);
    order.into_iter().map(|(_, address)| address).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(name: &str, weight: u32) -> OpenBackend {
        OpenBackend {
            name: name.into(),
            weight,
            addresses: vec!["127.0.0.1:1".parse().unwrap()],
            resting: vec![],
            rests: None,
        }
    }

    fn names(candidates: &[&OpenBackend]) -> Vec<String> {
        candidates.iter().map(|candidate| candidate.name.to_string()).collect()
    }

    #[test]
    fn a_heavy_backends_turns_are_spread_out() {
        let (a, b) = (open("a", 3), open("b", 1));
        let mut rotation = Rotation::default();
        let turns: Vec<_> = (0..8).map(|_| rotation.next(&[&a, &b]).unwrap()).collect();
        assert_eq!(turns, [0, 0, 1, 0, 0, 0, 1, 0]);
        assert_eq!(rotation.next(&[]), None);
    }

    #[test]
    fn a_backend_that_comes_back_is_not_flooded() {
        let (a, b) = (open("a", 1), open("b", 1));
        let mut rotation = Rotation::default();
        for _ in 0..100 {
            rotation.next(&[&a]);
        }
        let to_b = (0..10).filter(|_| rotation.next(&[&a, &b]) == Some(1)).count();
        assert_eq!(to_b, 5);
    }

    #[test]
    fn weight_zero_rests_while_another_of_the_tier_serves() {
        let tier = [open("a", 0), open("b", 5)];
        let active = BackendName::new("a");
        assert_eq!(names(&candidates(Target::Active, &active, &tier, &[], &[])), ["b"]);
        assert_eq!(names(&candidates(Target::Active, &active, &tier[..1], &[], &[])), ["a"]);
        assert_eq!(names(&candidates(Target::Active, &active, &tier, &[], &["b".into()])), ["a"]);
        let mut rotation = Rotation::default();
        let (a, c) = (open("a", 0), open("c", 0));
        let to_c = (0..10).filter(|_| rotation.next(&[&a, &c]) == Some(1)).count();
        assert_eq!(to_c, 5);
    }

    #[test]
    fn who_was_tried_in_vain_is_left_out_until_only_the_active_side_remains() {
        let (tier, readers) = ([open("a", 1)], [open("r1", 1), open("r2", 1)]);
        let active = BackendName::new("a");
        let left = |tried: &[BackendName]| names(&candidates(Target::ReadOnly, &active, &tier, &readers, tried));
        assert_eq!(left(&[]), ["r1", "r2"]);
        assert_eq!(left(&["r1".into()]), ["r2"]);
        assert_eq!(left(&["r1".into(), "r2".into()]), ["a"]);
        assert!(left(&["r1".into(), "r2".into(), "a".into()]).is_empty());
    }

    #[test]
    fn addresses_with_the_fewest_connections_come_first() {
        let [a, b, c]: [SocketAddr; 3] = ["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"].map(|text| text.parse().unwrap());
        let live = |address: &SocketAddr| if *address == b { 1 } else { 4 };
        assert_eq!(by_least_connections(&[a, b, c], live), [b, a, c]);
    }
}
