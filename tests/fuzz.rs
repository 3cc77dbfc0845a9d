//! Every reader of strangers' bytes against many cases made of real ones: none may panic, break a law of its own, or
//! allocate out of proportion. `PGPIVOT_FUZZ_SEED` (any whole number) makes other cases, `PGPIVOT_FUZZ_CASES` more.

#![allow(unreachable_pub, reason = "a test binary exports nothing")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "a failure shows its seed, even one that ends the process")]

#[path = "fuzz/allocator.rs"]
mod allocator;
#[path = "fuzz/mutate.rs"]
mod mutate;

use allocator::Counting;
use mutate::{Chance, case};
use pgpivot::fuzz::{BASE, TARGETS, Target};
use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The seed where none is given.
const SEED: u64 = 1;
/// Cases for each target where no number is given.
const CASES: u64 = 10_000;

#[test]
fn no_first_packet_of_a_client_brings_the_front_door_down() {
    fuzz("first_packet");
}

#[test]
fn no_message_of_a_server_brings_a_session_of_ours_down() {
    fuzz("server_messages");
}

#[test]
fn no_login_that_passes_through_brings_the_relay_down() {
    fuzz("login_relay");
}

#[test]
fn no_configuration_file_brings_the_check_of_it_down() {
    fuzz("config");
}

#[test]
fn no_env_file_brings_the_start_down() {
    fuzz("dotenv");
}

#[test]
fn no_reply_of_the_cloud_api_brings_its_client_down() {
    fuzz("cloud_reply");
}

#[test]
fn no_reply_of_patroni_brings_its_client_down() {
    fuzz("patroni_reply");
}

#[test]
fn no_connection_string_of_a_standby_is_misread_or_miswritten() {
    fuzz("conninfo");
}

#[test]
fn no_list_of_synchronous_standbys_is_misread_or_miswritten() {
    fuzz("sync_names");
}

#[test]
fn no_command_to_the_api_brings_it_down() {
    fuzz("command");
}

#[test]
fn no_address_position_or_certificate_brings_its_reader_down() {
    fuzz("words");
}

/// Else a target would be run by nobody.
#[test]
fn every_target_is_run_here_and_by_cargo_fuzz() {
    let here = include_str!("fuzz.rs");
    let manifest: toml::Table = include_str!("../fuzz/Cargo.toml").parse().unwrap();
    let bins: Vec<&str> = manifest["bin"].as_array().unwrap().iter().map(|bin| bin["name"].as_str().unwrap()).collect();
    let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(bins, names, "fuzz/Cargo.toml has one [[bin]] for each target, in the table's order");
    for name in names {
        assert!(here.contains(&format!("fuzz(\"{name}\")")), "{name} is not run by tests/fuzz.rs");
    }
}

/// The harness itself: what it is there for is found.
#[test]
fn a_reader_that_panics_or_takes_too_much_is_found_with_its_case() {
    let target = |read| Target { name: "planted", read, samples: &[b"abc"], per_byte: 16 };
    let broken = check(&target(|bytes| assert!(!bytes.contains(&b'x'), "an x")), b"a\0x\xff").unwrap_err();
    assert!(broken.contains("an x") && broken.contains(r"a\x00x\xff"), "{broken}");
    let greedy = check(&target(|bytes| drop(vec![0_u8; BASE + bytes.len() * 17])), b"abc").unwrap_err();
    assert!(greedy.contains("allocated"), "{greedy}");
    check(&target(|bytes| drop(bytes.to_vec())), b"abc").unwrap();
}

fn fuzz(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    let (seed, cases) = (number("PGPIVOT_FUZZ_SEED", SEED), number("PGPIVOT_FUZZ_CASES", CASES));
    println!("{name}: PGPIVOT_FUZZ_SEED={seed} PGPIVOT_FUZZ_CASES={cases}");
    write_samples(target);
    for sample in target.samples {
        check(target, sample).unwrap_or_else(|broken| panic!("{name}, a sample: {broken}"));
    }
    let mut chance = Chance::new(seed);
    for n in 0..cases {
        let case = case(target.samples, &mut chance);
        check(target, &case).unwrap_or_else(|broken| panic!("{name}, case {n} of seed {seed}: {broken}"));
    }
}

/// What is wrong with how this is read, and the case as a byte string.
fn check(target: &Target, case: &[u8]) -> Result<(), String> {
    let before = allocator::taken();
    let read = catch_unwind(|| (target.read)(case));
    let taken = allocator::taken().wrapping_sub(before);
    let told = match read {
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words").to_owned()
        }
        Ok(()) if taken > BASE + target.per_byte * case.len() => format!("{taken} bytes allocated"),
        Ok(()) => return Ok(()),
    };
    Err(format!("{told}; {} bytes: b\"{}\"", case.len(), case.escape_ascii()))
}

/// `PGPIVOT_FUZZ_CORPUS` = a folder that is to have what libFuzzer starts from, a folder for each target.
fn write_samples(target: &Target) {
    let Some(folder) = std::env::var_os("PGPIVOT_FUZZ_CORPUS") else { return };
    let folder = Path::new(&folder).join(target.name);
    fs::create_dir_all(&folder).unwrap();
    for (n, sample) in target.samples.iter().enumerate() {
        fs::write(folder.join(format!("sample-{n}")), sample).unwrap();
    }
}

fn number(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable} is {text:?}; write a whole number")),
        Err(_) => default,
    }
}
