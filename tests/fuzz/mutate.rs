//! Cases from samples: cut, flipped, spliced, repeated, with other lengths and with words that readers stumble over.
//! The same seed makes the same cases.

/// Longest case, bytes.
const LONGEST: usize = 64 << 10;
/// What length words and numbers are set to.
const NUMBERS: [u32; 16] =
    [0, 1, 3, 4, 5, 7, 8, 9, 255, 256, 10_000, 10_001, 1 << 20, 0x7fff_ffff, 0xffff_fffb, 0xffff_ffff];
/// What is put in as text.
const WORDS: [&[u8]; 26] = [
    b"\0",
    b"\0\0",
    b"'",
    b"\"",
    b"\\",
    b"%",
    b"%zz",
    b"%00",
    b"=",
    b",",
    b"(",
    b")",
    b"{",
    b"[[",
    b"\n",
    b"\r",
    b" ",
    b"\xff",
    "é".as_bytes(),
    "\u{2028}".as_bytes(),
    "\u{0130}".as_bytes(),
    b"-1",
    b"null",
    b"99999999999999999999",
    b"1e999",
    b"0x7fffffffffffffffh",
];

/// Chance from a seed (splitmix64).
#[derive(Debug)]
pub struct Chance(u64);

impl Chance {
    /// The same seed, the same chances.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// 0 to `end`, `end` excluded; 0 where that is 0.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % (end.max(1) as u64)).unwrap()
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }

    /// Some stretch of so many bytes, mostly a short one.
    fn range(&mut self, length: usize) -> std::ops::Range<usize> {
        let from = self.below(length + 1);
        let most = if self.below(4) == 0 { length } else { 16 };
        from..(from + self.below(most + 1)).min(length)
    }
}

/// One case.
pub fn case(samples: &[&[u8]], chance: &mut Chance) -> Vec<u8> {
    if chance.below(20) == 0 {
        let count = chance.below(300);
        return chance.bytes(count);
    }
    let mut case = chance.pick(samples).to_vec();
    for _ in 0..=chance.below(5) {
        mutate(&mut case, samples, chance);
        case.truncate(LONGEST);
    }
    case
}

fn mutate(case: &mut Vec<u8>, samples: &[&[u8]], chance: &mut Chance) {
    let at = chance.below(case.len());
    let range = chance.range(case.len());
    match chance.below(9) {
        0 => case.truncate(at),
        1 if !case.is_empty() => case[at] ^= 1 << chance.below(8),
        2 if !case.is_empty() => case[at] = chance.next() as u8,
        3 => overwrite(case, at, chance),
        4 => drop(case.drain(range)),
        5 => drop(case.splice(at..at, chance.pick(&WORDS).to_vec())),
        6 => drop(case.splice(range, chance.pick(&WORDS).to_vec())),
        7 => {
            let other = chance.pick(samples);
            let from = chance.below(other.len());
            case.truncate(at);
            case.extend_from_slice(&other[from..]);
        }
        _ => {
            let piece = case[range].to_vec();
            let most = LONGEST.saturating_sub(case.len()) / piece.len().max(1);
            let often = if chance.below(50) == 0 { most } else { chance.below(most.min(40) + 1) };
            let _ = case.splice(at..at, piece.repeat(often));
        }
    }
}

/// A length word of one, two or four bytes: one of [`NUMBERS`], or about what is left.
fn overwrite(case: &mut [u8], at: usize, chance: &mut Chance) {
    let left = u32::try_from(case.len() - at).unwrap();
    let number = match chance.below(3) {
        0 => left.wrapping_add(u32::try_from(chance.below(9)).unwrap()).wrapping_sub(4),
        _ => *chance.pick(&NUMBERS),
    };
    let width = *chance.pick(&[1, 2, 4]);
    let word = &number.to_be_bytes()[4 - width..];
    let room = case.len().min(at + width) - at;
    case[at..at + room].copy_from_slice(&word[..room]);
}
