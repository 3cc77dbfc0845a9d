//! The machine against random faults and commands, with the laws checked after each step by a reference that was
//! written from the laws alone.
//!
//! `PGPIVOT_MODEL_STEPS=5000000 cargo test --test model` runs long. A seed that fails is printed with the line that
//! replays it (`PGPIVOT_MODEL_SEED=…`), and belongs into `tests/model/seeds.txt`, which is replayed first.

#![allow(unreachable_pub, reason = "a test binary exports nothing")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a test fails by panicking")]

#[path = "model/chance.rs"]
mod chance;
#[path = "model/core.rs"]
mod core;
#[path = "model/daemon.rs"]
mod daemon;
#[path = "model/deciding.rs"]
mod deciding;
#[path = "model/disk.rs"]
mod disk;
#[path = "model/ears.rs"]
mod ears;
#[path = "model/effects.rs"]
mod effects;
#[path = "model/faults.rs"]
mod faults;
#[path = "model/heal.rs"]
mod heal;
#[path = "model/hearing.rs"]
mod hearing;
#[path = "model/laws.rs"]
mod laws;
#[path = "model/ordering.rs"]
mod ordering;
#[path = "model/pair.rs"]
mod pair;
#[path = "model/probing.rs"]
mod probing;
#[path = "model/process.rs"]
mod process;
#[path = "model/sabotage.rs"]
mod sabotage;
#[path = "model/scenario.rs"]
mod scenario;
#[path = "model/server.rs"]
mod server;
#[path = "model/standing.rs"]
mod standing;
#[path = "model/traffic.rs"]
mod traffic;
#[path = "model/world.rs"]
mod world;

use std::collections::BTreeMap;

use pgpivot::failover::phase::Phase;
use pgpivot::failover::transition::{self, EDGES};

use chance::Chance;
use laws::Breach;
use scenario::Scenario;
use world::World;

/// Steps of the default run.
const STEPS: u64 = 300_000;

type Edges = BTreeMap<(Phase, Phase), u64>;

struct Run {
    steps: u64,
    edges: Edges,
    breach: Option<Breach>,
    trace: Vec<String>,
}

fn run(seed: u64, verbose: bool) -> Run {
    let mut chance = Chance::new(seed);
    let scenario = Scenario::random(&mut chance);
    let length = scenario.length;
    let mut world = World::new(scenario, chance, None);
    world.verbose = verbose;
    if world.run_until(world.now + length) {
        world.heal();
    }
    for daemon in &mut world.daemons {
        daemon.note_edges();
    }
    let mut edges = Edges::new();
    for (edge, count) in world.daemons.iter().flat_map(|daemon| &daemon.edges) {
        *edges.entry(*edge).or_default() += count;
    }
    Run { steps: world.steps, edges, breach: world.breach.clone(), trace: world.said.into_iter().collect() }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn failed(seed: u64, breach: &Breach) -> String {
    format!(
        "law {:?} is broken with seed {seed}: {}\nreplay: PGPIVOT_MODEL_SEED={seed} cargo test --test model random -- --nocapture",
        breach.law, breach.said
    )
}

/// One run with everything that was said.
fn replay(seed: u64) {
    let run = run(seed, true);
    for line in &run.trace {
        println!("{line}");
    }
    println!("seed {seed}: {} steps", run.steps);
    if let Some(breach) = &run.breach {
        panic!("{}", failed(seed, breach));
    }
}

#[test]
fn random_faults_and_commands_break_no_law_and_take_every_edge() {
    if let Some(seed) = number("PGPIVOT_MODEL_SEED") {
        return replay(seed);
    }
    let wanted = number("PGPIVOT_MODEL_STEPS").unwrap_or(STEPS);
    let first = number("PGPIVOT_MODEL_FIRST").unwrap_or(1);
    let began = std::time::Instant::now();
    let (mut steps, mut runs, mut edges) = (0, 0, Edges::new());
    let mut broken = Vec::new();
    while steps < wanted {
        let seed = first + runs;
        let run = run(seed, false);
        steps += run.steps;
        runs += 1;
        for (edge, count) in run.edges {
            *edges.entry(edge).or_default() += count;
        }
        if let Some(breach) = run.breach {
            println!("{}", failed(seed, &breach));
            broken.push(breach.law);
            assert!(broken.len() < 40, "too many");
        }
    }
    println!("{steps} steps in {runs} runs, {:.1} s", began.elapsed().as_secs_f64());
    let stray: Vec<_> = edges.iter().filter(|((from, to), _)| transition::edge(*from, *to).is_none()).collect();
    for edge in EDGES {
        let count = edges.get(&(edge.from, edge.to)).copied().unwrap_or(0);
        println!("{count:>8}  {} → {}: {}", edge.from.as_str(), edge.to.as_str(), edge.why);
    }
    println!("stray: {stray:?}");
    assert!(broken.is_empty(), "{broken:?}");
    assert!(stray.is_empty(), "not in the table: {stray:?}");
}
