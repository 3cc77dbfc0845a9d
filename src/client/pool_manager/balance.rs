//! Which of several replicas a read goes to: the one with the fewest connections in use. Pure.

/// A replica that may be read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Choice {
    /// Its number among the servers.
    pub(super) server: usize,
    /// Connections that somebody holds.
    pub(super) in_use: u32,
}

/// The least busy one; of equally busy ones each in its turn. `turn` is +1 from one call to the next.
pub(super) fn choose(choices: &[Choice], turn: usize) -> Option<usize> {
    let fewest = choices.iter().map(|choice| choice.in_use).min()?;
    let idle: Vec<usize> =
        choices.iter().filter(|choice| choice.in_use == fewest).map(|choice| choice.server).collect();
    idle.get(turn % idle.len()).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choices(in_use: &[u32]) -> Vec<Choice> {
        in_use.iter().enumerate().map(|(server, &in_use)| Choice { server, in_use }).collect()
    }

    #[test]
    fn replicas_that_are_equally_busy_take_turns() {
        let chosen: Vec<_> = (0..6).filter_map(|turn| choose(&choices(&[0, 0, 0]), turn)).collect();
        assert_eq!(chosen, [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn a_busy_replica_is_spared() {
        let chosen: Vec<_> = (0..4).filter_map(|turn| choose(&choices(&[7, 2, 2]), turn)).collect();
        assert_eq!(chosen, [1, 2, 1, 2]);
    }

    #[test]
    fn where_there_is_none_none_is_chosen() {
        assert_eq!(choose(&[], 3), None);
    }
}
