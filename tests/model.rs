//! The machine against random faults and commands, with the laws checked after each step by a reference that was
//! written from the laws alone.
//!
//! `PGPIVOT_MODEL_STEPS=5000000 cargo test --test model` runs long, with `PGPIVOT_MODEL_FIRST=…` on other seeds. A seed
//! that fails is printed with the line that replays it (`PGPIVOT_MODEL_SEED=…`), and belongs into `tests/model/seeds.txt`,
//! which is replayed first. The default run must take every edge of the transition table.

#![allow(unreachable_pub, reason = "a test binary exports nothing")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a test fails by panicking")]

#[path = "model/administered.rs"]
mod administered;
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
#[path = "model/left.rs"]
mod left;
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

use std::collections::{BTreeMap, BTreeSet};

use pgpivot::failover::phase::Phase;
use pgpivot::failover::transition::{self, EDGES, Edge};

use chance::Chance;
use laws::{Breach, Law};
use scenario::Scenario;
use world::World;

/// Steps of the default run. It goes on while an edge is missing, up to `LONGEST`.
const STEPS: u64 = 300_000;
const LONGEST: u64 = 3_000_000;

/// Each on its line, with what it found.
const SEEDS: &str = include_str!("model/seeds.txt");

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
    let mut campaign = Campaign::default();
    for seed in seeds(SEEDS) {
        campaign.take(seed);
    }
    let replayed = std::mem::take(&mut campaign.steps);
    let mut seed = first;
    let whole = first == 1 && wanted >= STEPS;
    while campaign.steps < wanted || whole && campaign.steps < LONGEST && !untaken(&campaign.taken()).is_empty() {
        campaign.take(seed);
        seed += 1;
    }
    let (steps, runs, took) = (campaign.steps, seed - first, began.elapsed().as_secs_f64());
    println!("{replayed} steps replayed, {steps} steps in {runs} runs, {took:.1} s");
    for edge in EDGES {
        let (count, seed) = campaign.edges.get(&(edge.from, edge.to)).copied().unwrap_or_default();
        println!("{count:>8}  {}, first with seed {seed}", named(edge));
    }
    assert!(campaign.broken.is_empty(), "{:?}", campaign.broken);
    let stray = stray(&campaign.taken());
    assert!(stray.is_empty(), "not in the table: {stray:?}");
    let missing = untaken(&campaign.taken());
    assert!(!whole || missing.is_empty(), "never taken: {missing:#?}");
}

/// Runs in a row.
#[derive(Default)]
struct Campaign {
    steps: u64,
    /// How often, and the first seed.
    edges: BTreeMap<(Phase, Phase), (u64, u64)>,
    broken: Vec<Law>,
}

impl Campaign {
    fn taken(&self) -> BTreeSet<(Phase, Phase)> {
        self.edges.keys().copied().collect()
    }

    fn take(&mut self, seed: u64) {
        let run = run(seed, false);
        self.steps += run.steps;
        for (edge, count) in run.edges {
            self.edges.entry(edge).or_insert((0, seed)).0 += count;
        }
        if let Some(breach) = run.breach {
            println!("{}", failed(seed, &breach));
            self.broken.push(breach.law);
            assert!(self.broken.len() < 40, "too many");
        }
    }
}

/// One seed a line; what follows a `#` is for people.
fn seeds(list: &str) -> Vec<u64> {
    let bare = list.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    bare.filter(|line| !line.is_empty()).map(|line| line.parse().unwrap()).collect()
}

fn named(edge: &Edge) -> String {
    format!("{} → {}: {}", edge.from.as_str(), edge.to.as_str(), edge.why)
}

/// Edges of the table that nothing took.
fn untaken(taken: &BTreeSet<(Phase, Phase)>) -> Vec<String> {
    EDGES.iter().filter(|edge| !taken.contains(&(edge.from, edge.to))).map(named).collect()
}

/// What was taken and is not in the table.
fn stray(taken: &BTreeSet<(Phase, Phase)>) -> Vec<(Phase, Phase)> {
    taken.iter().copied().filter(|(from, to)| transition::edge(*from, *to).is_none()).collect()
}

#[test]
fn an_edge_that_was_never_taken_and_one_that_is_not_in_the_table_are_named() {
    let mut taken: BTreeSet<_> = EDGES.iter().map(|edge| (edge.from, edge.to)).collect();
    assert_eq!((untaken(&taken), stray(&taken)), (Vec::new(), Vec::new()));
    taken.remove(&(Phase::Promoting, Phase::Switching));
    taken.insert((Phase::Steady, Phase::Promoting));
    assert_eq!(untaken(&taken), ["promoting → switching: the new side proves to be primary"]);
    assert_eq!(stray(&taken), [(Phase::Steady, Phase::Promoting)]);
}

#[test]
fn a_list_of_seeds_is_read_without_its_comments() {
    assert_eq!(seeds("# all\n\n12 # Lock: two\n7\n"), [12, 7]);
    assert!(!seeds(SEEDS).is_empty());
}
