//! The history of decisions as JSON lines, each chained to the one before by SHA-256: the format, reading, checking.
//! Writing is `journal`'s.
//!
//! A line is `{"seq":…,"time":…,"prev":…,"event":{…},"hash":…}`. `hash` is the SHA-256 of all bytes of the line before
//! `,"hash"`; `prev` is the `hash` of the line before, 64 zeros in the first. So no line can be changed, taken out or
//! put in without breaking the chain from there to the end.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Doing, StoreError};
use crate::failover::action::Event;
use crate::view::ChainStatus;

/// A segment is closed before it would grow beyond this, bytes.
pub(super) const SEGMENT: u64 = 1 << 20;
/// Segments kept per pair; then the oldest goes.
pub(super) const SEGMENTS: usize = 16;
/// The longest line, bytes, its newline included.
pub(super) const LINE: usize = 64 << 10;
/// Breaks named by [`HistoryReader::verify`]; more are only counted.
const BREAKS: usize = 100;

/// One line of the history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HistoryLine {
    /// From 1, without a gap.
    pub seq: u64,
    /// `event.at` as RFC 3339.
    pub time: String,
    /// Hash of the line before, hexadecimal.
    pub prev: String,
    /// What happened.
    pub event: Event,
    /// Of this line, hexadecimal.
    pub hash: String,
}

#[derive(Serialize)]
struct Body<'a> {
    seq: u64,
    time: String,
    prev: &'a str,
    event: &'a Event,
}

const HASH_DIGITS: usize = 64;
const BEFORE_HASH: &str = r#","hash":""#;
const AFTER_HASH: &str = r#""}"#;

impl HistoryLine {
    /// The line that follows `last`.
    pub(super) fn after(last: Option<&HistoryLine>, event: &Event) -> Result<Self, StoreError> {
        let mut line = Self {
            seq: last.map_or(1, |line| line.seq + 1),
            time: event.at.to_string(),
            prev: last.map_or_else(|| "0".repeat(HASH_DIGITS), |line| line.hash.clone()),
            event: event.clone(),
            hash: String::new(),
        };
        line.hash = digest(line.body().as_bytes());
        let bytes = line.to_string().len() + 1;
        if bytes > LINE { Err(StoreError::LongEvent { bytes }) } else { Ok(line) }
    }

    /// Reads a line and checks its own hash.
    fn parse(text: &str) -> Option<Self> {
        let end = text.len().checked_sub(AFTER_HASH.len())?;
        let at = end.checked_sub(HASH_DIGITS)?;
        let body = text.get(..at)?.strip_suffix(BEFORE_HASH)?;
        if text.get(end..)? != AFTER_HASH || digest(body.as_bytes()) != text.get(at..end)? {
            return None;
        }
        serde_json::from_str(text).ok()
    }

    fn body(&self) -> String {
        let body = Body { seq: self.seq, time: self.time.clone(), prev: &self.prev, event: &self.event };
        let mut text = serde_json::to_string(&body).unwrap_or_default();
        text.pop();
        text
    }
}

impl std::fmt::Display for HistoryLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{BEFORE_HASH}{}{AFTER_HASH}", self.body(), self.hash)
    }
}

/// Reads a pair's history without locking the writer out.
#[derive(Debug, Clone)]
pub struct HistoryReader(Source);

#[derive(Debug, Clone)]
enum Source {
    Segments(PathBuf),
    Memory(Arc<Mutex<VecDeque<HistoryLine>>>),
}

/// What a check of the chain found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// Lines that are what they were when they were written.
    pub lines: u64,
    /// The first line still kept.
    pub first: Option<u64>,
    /// The last line.
    pub last: Option<u64>,
    /// How many places are broken.
    pub broken: u64,
    /// The first hundred of them.
    pub breaks: Vec<Break>,
}

/// A place where the chain does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Break {
    /// The segment's file name.
    pub segment: String,
    /// From 1.
    pub line: u64,
    /// What is wrong.
    pub what: BreakKind,
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakKind {
    /// It is not what was written.
    Changed,
    /// It does not follow the line before it: lines are missing, were put in or exchanged.
    Unchained,
}

impl Verified {
    /// Is every line still kept what was written, and none missing between the first and the last?
    pub fn is_whole(&self) -> bool {
        self.broken == 0
    }

    /// For people.
    pub fn shown(self, pair: String) -> ChainStatus {
        let breaks = self.breaks.iter().map(|found| {
            let what = match found.what {
                BreakKind::Changed => "is not what was written",
                BreakKind::Unchained => {
                    "does not follow the line before it: lines are missing, were put in or exchanged"
                }
            };
            format!("{}, line {}, {what}", found.segment, found.line)
        });
        let breaks = breaks.collect();
        ChainStatus { pair, lines: self.lines, first: self.first, last: self.last, broken: self.broken, breaks }
    }
}

impl HistoryReader {
    pub(super) fn of_segments(dir: PathBuf) -> Self {
        Self(Source::Segments(dir))
    }

    pub(super) fn of_memory(lines: Arc<Mutex<VecDeque<HistoryLine>>>) -> Self {
        Self(Source::Memory(lines))
    }

    /// The newest `limit` readable lines, oldest first.
    pub fn history(&self, limit: usize) -> Result<Vec<HistoryLine>, StoreError> {
        let mut newest_first = Vec::new();
        for segment in self.segments()?.iter().rev() {
            let text = self.load(segment)?;
            let wanted = limit - newest_first.len();
            newest_first.extend(whole_lines(&text).rev().filter_map(HistoryLine::parse).take(wanted));
            if newest_first.len() == limit {
                break;
            }
        }
        newest_first.reverse();
        Ok(newest_first)
    }

    /// Writes every line as it stands on disk, oldest first.
    pub fn export(&self, out: &mut dyn Write) -> Result<(), StoreError> {
        for segment in &self.segments()? {
            for line in whole_lines(&self.load(segment)?) {
                writeln!(out, "{line}")
                    .map_err(|error| StoreError::io(Path::new("the export"), Doing::Write, error))?;
            }
        }
        Ok(())
    }

    /// Checks every line against its hash and its place in the chain.
    pub fn verify(&self) -> Result<Verified, StoreError> {
        let mut chain = Chain::default();
        for segment in &self.segments()? {
            for (n, text) in (1..).zip(whole_lines(&self.load(segment)?)) {
                chain.check(segment, n, text);
            }
        }
        Ok(chain.verified)
    }

    fn segments(&self) -> Result<Vec<Segment>, StoreError> {
        match &self.0 {
            Source::Segments(dir) => segments(dir),
            Source::Memory(_) => Ok(vec![Segment { number: 1, path: PathBuf::from("memory") }]),
        }
    }

    fn load(&self, segment: &Segment) -> Result<String, StoreError> {
        match &self.0 {
            Source::Segments(_) => load(&segment.path),
            Source::Memory(lines) => {
                let lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
                Ok(lines.iter().map(|line| format!("{line}\n")).collect())
            }
        }
    }
}

#[derive(Default)]
struct Chain {
    verified: Verified,
    last: Option<HistoryLine>,
    /// The line before this one is not to be trusted, so this one's `prev` cannot be checked.
    lost: bool,
}

impl Chain {
    fn check(&mut self, segment: &Segment, n: u64, text: &str) {
        let Some(line) = HistoryLine::parse(text) else {
            self.lost = true;
            return self.note(segment, n, BreakKind::Changed);
        };
        let follows = match &self.last {
            Some(last) => line.seq == last.seq + 1 && line.prev == last.hash,
            // Older segments are gone by design; only the very first line has a known beginning.
            None => line.seq > 1 || line.prev == "0".repeat(HASH_DIGITS),
        };
        if !follows && !std::mem::take(&mut self.lost) {
            self.note(segment, n, BreakKind::Unchained);
        }
        self.lost = false;
        self.verified.lines += 1;
        self.verified.first.get_or_insert(line.seq);
        self.verified.last = Some(line.seq);
        self.last = Some(line);
    }

    fn note(&mut self, segment: &Segment, line: u64, what: BreakKind) {
        self.verified.broken += 1;
        if self.verified.breaks.len() < BREAKS {
            self.verified.breaks.push(Break { segment: segment.name(), line, what });
        }
    }
}

/// One file of a pair's history.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) path: PathBuf,
}

impl Segment {
    pub(super) fn new(dir: &Path, number: u64) -> Self {
        Self { number, path: dir.join(format!("{number:08}.jsonl")) }
    }

    pub(super) fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

/// The segments in `dir`, oldest first; none if there is no such directory.
pub(super) fn segments(dir: &Path) -> Result<Vec<Segment>, StoreError> {
    let failed = |error| StoreError::io(dir, Doing::Read, error);
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".jsonl"));
        if let Some(number) = name.and_then(|digits| digits.parse().ok()) {
            found.push(Segment { number, path });
        }
    }
    found.sort();
    Ok(found)
}

/// The text of a segment; empty if it was dropped meanwhile. Bytes that are no text only spoil their own line.
pub(super) fn load(path: &Path) -> Result<String, StoreError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(SEGMENT + LINE as u64).read_to_end(&mut bytes));
    match read {
        Ok(_) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(StoreError::io(path, Doing::Read, error)),
    }
}

/// What the end of a segment's text looks like.
pub(super) struct Tail {
    /// The last line that is whole and hashes right.
    pub(super) last: Option<HistoryLine>,
    /// Where it ends, bytes.
    pub(super) end: u64,
    /// What stands behind it was cut off in the middle of a write.
    pub(super) torn: bool,
}

/// Finds the last good line. `bytes` are the segment as it stands on disk.
pub(super) fn tail(bytes: &[u8]) -> Tail {
    let (mut last, mut end, mut at) = (None, 0, 0);
    while let Some(length) = bytes[at..].iter().position(|b| *b == b'\n') {
        let text = std::str::from_utf8(&bytes[at..at + length]).ok();
        at += length + 1;
        if let Some(line) = text.and_then(HistoryLine::parse) {
            (last, end) = (Some(line), at);
        }
    }
    let rest = &bytes[end..];
    let torn = rest.last().is_some_and(|b| *b != b'\n') || rest.contains(&0);
    Tail { last, end: end as u64, torn }
}

/// Lines that end with a newline: the last one may still be in the writing.
fn whole_lines(text: &str) -> impl DoubleEndedIterator<Item = &str> {
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.split('\n').filter(|line| !line.is_empty())
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// As `load`, but the very bytes.
pub(super) fn load_bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(SEGMENT + LINE as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}
