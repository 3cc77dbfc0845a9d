//! Sides that were left: who may be made read-only and released again, and what must be known before.

use pgpivot::failover::action::Latched;
use pgpivot::failover::observation::{Facts, Role};
use pgpivot::types::BackendName;

use crate::ears::on_line;
use crate::laws::{Law, Laws, Scene};

impl Laws {
    /// Only the very server that was left, while it says to serve on the line that was left behind, and only while the
    /// active side says to be the primary that is latched. The undo is on disk before.
    pub fn orders_softening(&mut self, backend: &BackendName, server: &Latched, scene: &Scene<'_>) {
        let on_disk = scene.disk.frozen.contains(backend);
        self.demand(Law::Freeze, on_disk, || format!("{backend} is made read-only before that is on disk"));
        let calm = self.course.is_none() && scene.disk.intent.is_none();
        self.demand(Law::Freeze, calm, || format!("{backend} is made read-only in the middle of an episode"));
        let Some(identity) = self.identity().cloned() else {
            return self.broken(Law::Freeze, format!("{backend} is made read-only and no line is latched"));
        };
        let behind = identity.system_id == server.system_id
            && identity.ancestors.iter().any(|ancestor| ancestor.timeline == server.timeline);
        self.demand(Law::Freeze, behind, || format!("{server:?} is no line that {identity:?} left behind"));
        let told = |name: &BackendName| self.ears.get(name).and_then(|ear| ear.facts().cloned());
        let itself = told(backend).is_some_and(|facts| {
            facts.role == Role::Primary
                && facts.system_id == Some(server.system_id)
                && facts.timeline == Some(server.timeline)
                && facts.node.is_some()
                && facts.node == server.node
        });
        let active = self.active().cloned();
        let proves = |facts: Facts| facts.role == Role::Primary && on_line(&facts, &identity);
        let stands = active.as_ref().is_some_and(|active| active != backend && told(active).is_some_and(proves));
        self.demand(Law::Freeze, itself, || format!("{backend} does not say to be {server:?}"));
        self.demand(Law::Freeze, stands, || {
            format!("{backend} is made read-only beside {active:?}, which may be no primary")
        });
        self.froze.insert(backend.clone());
    }

    /// Only a standby of the latched side is released: never a primary.
    pub fn orders_thaw(&mut self, backend: &BackendName) {
        let standby =
            self.ears.get(backend).and_then(|ear| ear.facts()).is_some_and(|facts| facts.role == Role::Standby);
        let other = self.active() != Some(backend);
        self.demand(Law::Freeze, standby && other, || format!("{backend} is released and is no standby"));
    }
}
