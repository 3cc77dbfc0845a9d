//! From the way a connection failed to the verdict about the server. Pure: the one place where SQLSTATE, errno and
//! TLS errors become health. Counting verdicts is the decision core's.

use rustix::io::Errno;
use tokio_rustls::rustls;

use crate::config::Kind;
use crate::failover::observation::{Facts, Failure, Role, Unknown, Verdict};
use crate::net::fault::{Cause, ProtocolFault, SessionError, Step};

/// What a failed login or query says about the server.
pub(super) fn session(error: &SessionError) -> Verdict {
    match &error.cause {
        Cause::Sqlstate { code, message } => sqlstate(code, message),
        Cause::Io { code, .. } => io(*code, error.step),
        Cause::TimedOut => Verdict::Failed(Failure::TimedOut),
        Cause::Closed | Cause::PostmasterDied => Verdict::Failed(Failure::Lost),
        Cause::Certificate(_) => Verdict::Unknown(Unknown::Certificate),
        Cause::Handshake(rustls::Error::InvalidMessage(_)) => Verdict::Failed(Failure::BadReply),
        Cause::Handshake(_) | Cause::NoTls => Verdict::Unknown(Unknown::TlsMismatch),
        Cause::NoPassword | Cause::Method | Cause::Impostor => Verdict::Unknown(Unknown::Authentication),
        Cause::Protocol(fault) => protocol(*fault),
    }
}

/// The same for a startup packet without credentials: there a refused password proves that logins are served.
pub(super) fn greeting(kind: Kind, error: &SessionError) -> Verdict {
    match error.sqlstate() {
        Some("28P01") => serving(kind),
        _ => session(error),
    }
}

/// A live server answered, and nothing more is known of it. A cluster that lets anybody as far as this serves the
/// virtual cluster that was asked for, which a standby does not.
pub(super) fn serving(kind: Kind) -> Verdict {
    let role = if kind == Kind::Cockroach { Role::Primary } else { Role::Unknown };
    Verdict::Answered(Box::new(Facts { role, ..Facts::default() }))
}

fn sqlstate(code: &str, message: &str) -> Verdict {
    match code {
        "57P03" if is_shutting_down(message) => Verdict::Failed(Failure::ShuttingDown),
        // Starting up, in recovery, not yet accepting, hot standby off; also in a language we cannot read.
        "57P03" => Verdict::Recovering,
        "57P01" => Verdict::Failed(Failure::ShuttingDown),
        "57P02" => Verdict::Unknown(Unknown::CrashShutdown),
        // Our own statement_timeout.
        "57014" => Verdict::Failed(Failure::TimedOut),
        // A CockroachDB cluster that does not serve this virtual cluster: a standby, as seen from outside.
        "08000" => Verdict::Failed(Failure::NotServing),
        "08P01" if message.contains("SSL") => Verdict::Unknown(Unknown::TlsMismatch),
        "3D000" => Verdict::Unknown(Unknown::NoDatabase),
        "53300" => Verdict::Unknown(Unknown::TooManyConnections),
        "53100" => Verdict::Unknown(Unknown::DiskFull),
        _ if code.starts_with("28") => Verdict::Unknown(Unknown::Authentication),
        _ => Verdict::Unknown(Unknown::QueryRefused),
    }
}

/// PostgreSQL gives one code to "starting up" and "shutting down"; only the text tells.
fn is_shutting_down(message: &str) -> bool {
    message.contains("shutting down")
}

fn io(code: Option<i32>, step: Step) -> Verdict {
    let Some(code) = code else {
        return Verdict::Failed(Failure::Lost);
    };
    match Errno::from_raw_os_error(code) {
        // Only a connect can be refused; everything later was a connection once.
        Errno::CONNREFUSED if step == Step::Connect => Verdict::Failed(Failure::Refused),
        Errno::TIMEDOUT => Verdict::Failed(Failure::TimedOut),
        Errno::HOSTUNREACH
        | Errno::NETUNREACH
        | Errno::HOSTDOWN
        | Errno::NETDOWN
        | Errno::AFNOSUPPORT
        | Errno::PERM
        | Errno::ACCESS => Verdict::Failed(Failure::Unreachable),
        Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM | Errno::ADDRNOTAVAIL | Errno::AGAIN => {
            Verdict::Unknown(Unknown::LocalResource)
        }
        _ => Verdict::Failed(Failure::Lost),
    }
}

fn protocol(fault: ProtocolFault) -> Verdict {
    match fault {
        ProtocolFault::TooLarge(_) | ProtocolFault::Malformed | ProtocolFault::Unexpected => {
            Verdict::Failed(Failure::BadReply)
        }
        // Ours, not the server's: nothing was learned.
        ProtocolFault::Abandoned => Verdict::Unknown(Unknown::OwnDelay),
        ProtocolFault::ZeroByte => Verdict::Unknown(Unknown::Authentication),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn said(code: &str, message: &str) -> SessionError {
        SessionError { step: Step::Startup, cause: Cause::Sqlstate { code: code.into(), message: message.into() } }
    }

    fn errno(step: Step, errno: Errno) -> Verdict {
        session(&SessionError { step, cause: io::Error::from(errno).into() })
    }

    #[test]
    fn a_server_that_starts_or_recovers_is_recovering_and_one_that_shuts_down_is_not() {
        for text in [
            "the database system is starting up",
            "the database system is in recovery mode",
            "the database system is not yet accepting connections",
            "the database system is not accepting connections",
            "das Datenbanksystem startet",
        ] {
            assert_eq!(session(&said("57P03", text)), Verdict::Recovering, "{text}");
        }
        let stops = Verdict::Failed(Failure::ShuttingDown);
        assert_eq!(session(&said("57P03", "the database system is shutting down")), stops);
        assert_eq!(session(&said("57P01", "terminating connection due to administrator command")), stops);
    }

    #[test]
    fn a_live_server_that_will_not_talk_to_us_is_never_a_failure() {
        let cases = [
            ("28P01", Unknown::Authentication),
            ("28000", Unknown::Authentication),
            ("3D000", Unknown::NoDatabase),
            ("53300", Unknown::TooManyConnections),
            ("53100", Unknown::DiskFull),
            ("57P02", Unknown::CrashShutdown),
            ("42501", Unknown::QueryRefused),
            ("XX000", Unknown::QueryRefused),
        ];
        for (code, why) in cases {
            assert_eq!(session(&said(code, "no")), Verdict::Unknown(why), "{code}");
        }
        let no_tls = said("08P01", "node is running secure mode, SSL connection required");
        assert_eq!(session(&no_tls), Verdict::Unknown(Unknown::TlsMismatch));
    }

    #[test]
    fn the_startup_probe_takes_a_refused_password_for_a_server_that_serves() {
        for kind in [Kind::Postgres, Kind::Cockroach] {
            assert_eq!(greeting(kind, &said("28P01", "password authentication failed")), serving(kind));
            let refused = greeting(kind, &said("28000", "no pg_hba.conf entry"));
            assert_eq!(refused, Verdict::Unknown(Unknown::Authentication));
        }
        let standby = said("08000", "service unavailable for target tenant (main)");
        assert_eq!(greeting(Kind::Cockroach, &standby), Verdict::Failed(Failure::NotServing));
    }

    #[test]
    fn only_a_refused_connect_is_refused() {
        assert_eq!(errno(Step::Connect, Errno::CONNREFUSED), Verdict::Failed(Failure::Refused));
        assert_eq!(errno(Step::Query, Errno::CONNREFUSED), Verdict::Failed(Failure::Lost));
        for unreachable in [Errno::HOSTUNREACH, Errno::NETUNREACH] {
            assert_eq!(errno(Step::Connect, unreachable), Verdict::Failed(Failure::Unreachable));
        }
        assert_eq!(errno(Step::Connect, Errno::TIMEDOUT), Verdict::Failed(Failure::TimedOut));
        assert_eq!(errno(Step::Startup, Errno::CONNRESET), Verdict::Failed(Failure::Lost));
        assert_eq!(errno(Step::Query, Errno::PIPE), Verdict::Failed(Failure::Lost));
        let closed = SessionError { step: Step::Startup, cause: Cause::Closed };
        assert_eq!(session(&closed), Verdict::Failed(Failure::Lost));
        let late = SessionError { step: Step::Connect, cause: Cause::TimedOut };
        assert_eq!(session(&late), Verdict::Failed(Failure::TimedOut));
    }

    #[test]
    fn a_machine_without_free_descriptors_or_ports_learns_nothing() {
        for own in [Errno::MFILE, Errno::NFILE, Errno::ADDRNOTAVAIL] {
            assert_eq!(errno(Step::Connect, own), Verdict::Unknown(Unknown::LocalResource));
        }
    }

    #[test]
    fn a_certificate_that_does_not_verify_is_unknown_and_a_peer_that_speaks_no_tls_is_a_bad_reply() {
        let certificate = Cause::Certificate(rustls::CertificateError::Expired);
        let verdict = session(&SessionError { step: Step::Tls, cause: certificate });
        assert_eq!(verdict, Verdict::Unknown(Unknown::Certificate));
        let garbage = rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType);
        let verdict = session(&SessionError { step: Step::Tls, cause: Cause::Handshake(garbage) });
        assert_eq!(verdict, Verdict::Failed(Failure::BadReply));
        let none = session(&SessionError { step: Step::Tls, cause: Cause::NoTls });
        assert_eq!(none, Verdict::Unknown(Unknown::TlsMismatch));
    }
}
