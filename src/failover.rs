//! The decision core: pure. Observations, commands, outcomes and time go in; actions, events and a view come out.
//! It imports no runtime, socket, file, clock or random source; the driver in `daemon` owns those.

pub mod action;
pub mod analysis;
pub mod candidate;
pub mod durability;
pub mod explain;
pub mod health;
pub mod machine;
pub mod need;
pub mod observation;
pub mod patroni;
pub mod phase;
pub mod reads;
pub mod relayed;
pub mod replication;
pub mod side;
pub mod survivors;
pub mod sync_names;
pub mod transition;
pub mod witness;
