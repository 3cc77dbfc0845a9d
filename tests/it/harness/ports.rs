//! Free TCP ports that stay ours: below the range from which the kernel lends ports to outgoing connections, so that
//! a server that is down answers "refused" and nobody else sits on its port.

use std::fs::{File, TryLockError};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, Ordering};

const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;
/// Ports people know: nothing of ours may sit there.
const KNOWN: [u16; 2] = [26_257, 27_017];

/// Held until the process ends, whoever else runs tests on this machine.
static TAKEN: Mutex<Vec<File>> = Mutex::new(Vec::new());
static NEXT: AtomicU16 = AtomicU16::new(0);

/// A port on which nobody listens and that no other test process takes.
pub fn free_port() -> u16 {
    let dir = std::env::temp_dir().join("pgpivot-it-ports");
    std::fs::create_dir_all(&dir).unwrap();
    let start = u16::try_from(std::process::id().wrapping_mul(37) % u32::from(COUNT)).unwrap();
    for _ in 0..COUNT {
        let port = FIRST + (start + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT) % COUNT;
        if KNOWN.contains(&port) {
            continue;
        }
        let lock = File::create(dir.join(port.to_string())).unwrap();
        match lock.try_lock() {
            Ok(()) if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() => {
                TAKEN.lock().unwrap().push(lock);
                return port;
            }
            Ok(()) | Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(e)) => {
                panic!("cannot lock {}: {e}", dir.join(port.to_string()).display())
            }
        }
    }
    panic!("no free port between {FIRST} and {}", FIRST + COUNT);
}
