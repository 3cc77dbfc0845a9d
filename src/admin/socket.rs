//! Binding: early, so that a taken port or socket is named before anything else starts. Serves nothing.

use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::auth::Peer;

/// Why the admin server does not start.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The TCP address cannot be had.
    #[error("{key} = {address}: {}", bind_remedy(.source))]
    Bind {
        /// The key in the configuration.
        key: &'static str,
        /// The address that was asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Another process serves on the unix socket.
    #[error("admin.socket = {path}: another process answers there; stop it or choose another path")]
    SocketInUse {
        /// The path.
        path: PathBuf,
    },
    /// Something that is not a socket stands at the path.
    #[error("admin.socket = {path}: is there already and is not a socket; choose another path")]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The unix socket cannot be made.
    #[error("admin.socket = {path}: {source}")]
    Socket {
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The thread or its runtime could not be started.
    #[error("the admin thread cannot start: {0}")]
    Thread(io::Error),
}

fn bind_remedy(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "is taken; stop the process that has it or choose another port".to_owned(),
        io::ErrorKind::AddrNotAvailable => "is not an address of this machine".to_owned(),
        io::ErrorKind::PermissionDenied => "may not be bound by this user; choose a port above 1023".to_owned(),
        _ => error.to_string(),
    }
}

/// A listening socket.
#[derive(Debug)]
pub(super) enum Door {
    Tcp(TcpListener),
    Unix {
        listener: UnixListener,
        /// Held for its end.
        _file: SocketFile,
    },
}

/// One accepted connection.
#[derive(Debug)]
pub(super) enum Guest {
    Tcp(TcpStream, Peer),
    Unix(UnixStream, Peer),
}

impl Door {
    /// Needs a runtime's context.
    pub(super) fn tcp(key: &'static str, address: SocketAddr) -> Result<Self, AdminError> {
        let bind = || {
            let listener = StdTcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            TcpListener::from_std(listener)
        };
        bind().map(Self::Tcp).map_err(|source| AdminError::Bind { key, address, source })
    }

    /// Needs a runtime's context. Mode 0600 from its first moment on.
    pub(super) fn unix(path: &Path) -> Result<Self, AdminError> {
        clear_stale(path)?;
        let bind = || {
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
            // Linux gives the file the mode of the descriptor; a chmod after the bind would leave a gap.
            rustix::fs::fchmod(socket.as_fd(), rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR)?;
            socket.bind(&SockAddr::unix(path)?)?;
            let file = SocketFile::claim(path)?;
            socket.listen(128)?;
            let listener = StdUnixListener::from(std::os::fd::OwnedFd::from(socket));
            listener.set_nonblocking(true)?;
            Ok((UnixListener::from_std(listener)?, file))
        };
        let (listener, file) = bind().map_err(|source| AdminError::Socket { path: path.to_owned(), source })?;
        Ok(Self::Unix { listener, _file: file })
    }

    /// The port that was chosen for port 0.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix { .. } => None,
        }
    }

    /// Cancel safe.
    pub(super) async fn accept(&self) -> io::Result<Guest> {
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Guest::Tcp(stream, Peer::Tcp(address)))
            }
            Self::Unix { listener, .. } => {
                let (stream, _) = listener.accept().await?;
                let uid = stream.peer_cred()?.uid();
                Ok(Guest::Unix(stream, Peer::Unix { uid }))
            }
        }
    }
}

/// The socket's file; removed with the door, unless somebody put another in its place.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    fn claim(path: &Path) -> io::Result<Self> {
        let meta = std::fs::symlink_metadata(path)?;
        Ok(Self { path: path.to_owned(), device: meta.dev(), inode: meta.ino() })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = |meta: &std::fs::Metadata| meta.dev() == self.device && meta.ino() == self.inode;
        if std::fs::symlink_metadata(&self.path).is_ok_and(|meta| ours(&meta))
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "admin socket not removed");
        }
    }
}

/// Removes a socket that nobody answers on any more, and nothing else.
fn clear_stale(path: &Path) -> Result<(), AdminError> {
    let failed = |source| AdminError::Socket { path: path.to_owned(), source };
    let meta = match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(failed(e)),
        Ok(meta) => meta,
    };
    if !meta.file_type().is_socket() {
        return Err(AdminError::NotASocket { path: path.to_owned() });
    }
    match StdUnixStream::connect(path) {
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path).map_err(failed),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(failed(e)),
        Ok(_) => Err(AdminError::SocketInUse { path: path.to_owned() }),
    }
}
