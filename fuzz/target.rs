//! Every target's program: its name says which one of the table it is.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pgpivot::fuzz::run(env!("CARGO_BIN_NAME"), data));
