//! `pgpivot demo`
pub mod binaries;
pub mod folder;
pub mod postgres;
