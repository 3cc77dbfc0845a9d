//! What goes wrong with the streams of a simulated cloud behind everybody's back: nothing that its API would do.

use super::{Cloud, Number};

impl Cloud {
    /// Puts a stream that has caught up beside those there are, also where [`Cloud::create_stream`] is refused because
    /// one of the same direction is open. Gives its id.
    pub fn plant_stream(&self, primary: impl Into<Number>, standby: impl Into<Number>) -> String {
        let id = {
            let (mut world, now) = self.site.world_now();
            world.plant(primary.into().0, standby.into().0, now)
        };
        self.site.changed();
        id
    }

    /// Makes a stream CANCELED also where [`Cloud::cancel`] is refused because it fails over; `false` = it has ended.
    pub fn break_off(&self, stream: &str) -> bool {
        let (mut world, now) = self.site.world_now();
        world.break_off(stream, now).is_ok()
    }

    /// Makes a stream vanish: 404, and in no list; `false` = there is no such stream.
    pub fn forget_stream(&self, stream: &str) -> bool {
        self.site.world_now().0.forget(stream).is_ok()
    }
}
