//! The loads, what is measured of each, and what is asked of pgpivot.

use std::fmt;

use clap::ValueEnum;
use serde::Serialize;

use super::database::DatabaseLoad;
use super::figures::Quantity;
use super::peer::PeerKind;
use super::raw::RawLoad;

/// A load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scenario {
    /// pgbench, one client, prepared SELECTs.
    Select1,
    /// The same with 16.
    Select16,
    /// The same with 64.
    Select64,
    /// 100 bytes there and back on one connection.
    Pingpong1,
    /// The same on 64 connections.
    Pingpong64,
    /// One stream from the server.
    Down,
    /// One stream to the server.
    Up,
    /// COPY of a table out of PostgreSQL.
    CopyOut,
    /// COPY of the same rows into PostgreSQL.
    CopyIn,
    /// Connect, one message, close.
    Churn,
    /// 9,800 connections that rest.
    Idle,
}

/// Against what it is played.
#[derive(Debug, Clone, Copy)]
pub enum Load {
    /// A server of our own that reads a first packet and then echoes, sends or swallows.
    Raw(RawLoad),
    /// PostgreSQL.
    Database(DatabaseLoad),
}

impl Scenario {
    /// Every one.
    pub const ALL: [Self; 11] = [
        Self::Select1,
        Self::Select16,
        Self::Select64,
        Self::Pingpong1,
        Self::Pingpong64,
        Self::Down,
        Self::Up,
        Self::CopyOut,
        Self::CopyIn,
        Self::Churn,
        Self::Idle,
    ];

    /// What is done.
    pub fn load(self) -> Load {
        match self {
            Self::Select1 => Load::Database(DatabaseLoad::Select { clients: 1 }),
            Self::Select16 => Load::Database(DatabaseLoad::Select { clients: 16 }),
            Self::Select64 => Load::Database(DatabaseLoad::Select { clients: 64 }),
            Self::Pingpong1 => Load::Raw(RawLoad::Pingpong { connections: 1 }),
            Self::Pingpong64 => Load::Raw(RawLoad::Pingpong { connections: 64 }),
            Self::Down => Load::Raw(RawLoad::Down),
            Self::Up => Load::Raw(RawLoad::Up),
            Self::CopyOut => Load::Database(DatabaseLoad::CopyOut),
            Self::CopyIn => Load::Database(DatabaseLoad::CopyIn),
            Self::Churn => Load::Raw(RawLoad::Churn),
            Self::Idle => Load::Raw(RawLoad::Idle),
        }
    }

    /// HAProxy that is told to splice is measured where there is something to splice; nobody's memory is direct's.
    pub fn takes(self, peer: PeerKind) -> bool {
        match peer {
            PeerKind::HaproxySplice => matches!(self, Self::Down | Self::Up | Self::CopyOut | Self::CopyIn),
            PeerKind::Direct => self != Self::Idle,
            PeerKind::HaproxyT1 | PeerKind::HaproxyT2 | PeerKind::Pgpivot => true,
        }
    }

    /// The ratio to the better of HAProxy's one- and two-thread runs that pgpivot is to keep, if one is set.
    pub fn target(self, quantity: Quantity) -> Option<f64> {
        use Quantity::{Cpu, Latency, Memory, Rate};
        Some(match (self, quantity) {
            (Self::Select16 | Self::Select64, Cpu | Rate) => 0.95,
            (Self::Select1, Latency) => 1.15,
            (Self::Pingpong64, Cpu) => 0.92,
            (Self::Pingpong1, Latency) => 1.0,
            (Self::Down | Self::Up, Cpu) => 0.25,
            (Self::Down | Self::Up, Rate) => 2.2,
            (Self::CopyOut, Cpu) => 0.65,
            (Self::CopyIn, Cpu) => 0.35,
            (Self::Churn, Cpu) => 0.96,
            (Self::Idle, Memory) => 0.55,
            _ => return None,
        })
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.to_possible_value().unwrap().get_name())
    }
}
