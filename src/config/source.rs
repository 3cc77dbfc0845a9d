//! The one file of the room that reads: the configuration file, `.env`, the process's environment, and the files that
//! hold secrets. Judges nothing but whether a file can be read and who else may read it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{File, Metadata};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::env::{self, Env};
use super::raw::{self, Raw};
use super::validate::{self, Problem};
use super::{Config, Promoter};
use crate::types::Secret;

/// A configuration that the daemon can run on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// What to run on.
    pub config: Config,
    /// One sentence each: what works but should be looked at.
    pub warnings: Vec<String>,
    /// Every file that was read, for whoever wants to know when to read again.
    pub files: Vec<PathBuf>,
}

/// A configuration that it cannot run on: every problem, one line each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// At least one.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

/// The configuration file may be this large.
const MAX_CONFIG: u64 = 1 << 20;
/// Every other file.
const MAX_OTHER: u64 = 64 << 10;

/// Loads the file at `path`, or without one what the environment says. The environment wins over `.env` in the
/// working directory, and both win over the file. Relative paths are relative to the working directory.
pub fn load(path: Option<&Path>) -> Result<Loaded, ConfigError> {
    load_from(path, Path::new(".env"), std::env::vars_os().filter_map(text_pair).collect())
}

/// [`load`] with a `.env` file and an environment of one's own.
pub fn load_from(
    path: Option<&Path>,
    dotenv: &Path,
    environment: BTreeMap<String, String>,
) -> Result<Loaded, ConfigError> {
    let mut reading = Reading::default();
    let mut raw = match path {
        Some(path) => reading.config(path),
        None => Raw::default(),
    };
    let env = Env::parse(&reading.variables(dotenv, environment));
    reading.secrets(&mut raw);
    raw.problems.extend(reading.problems);
    for warning in &reading.warnings {
        raw.problems.warn(warning);
    }
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let (config, mut warnings) = validate::build(raw, &env, cores).map_err(|problems| ConfigError { problems })?;
    let problems = check_named_files(&config, &mut warnings);
    if !problems.is_empty() {
        return Err(ConfigError { problems });
    }
    Ok(Loaded { config, warnings, files: reading.files })
}

/// Names and values that are no text cannot be ours.
fn text_pair((name, value): (std::ffi::OsString, std::ffi::OsString)) -> Option<(String, String)> {
    Some((name.into_string().ok()?, value.into_string().ok()?))
}

#[derive(Default)]
struct Reading {
    files: Vec<PathBuf>,
    problems: Vec<Problem>,
    warnings: Vec<String>,
}

impl Reading {
    fn config(&mut self, path: &Path) -> Raw {
        let file = path.display();
        match read(path, MAX_CONFIG) {
            Ok((text, _)) => {
                self.files.push(path.to_owned());
                raw::parse(&text)
            }
            Err(error) => {
                self.problems.push(Problem::new(file.to_string(), error.to_string()));
                Raw { broken: true, ..Raw::default() }
            }
        }
    }

    /// The environment over what `.env` says.
    fn variables(&mut self, dotenv: &Path, environment: BTreeMap<String, String>) -> BTreeMap<String, String> {
        let file = dotenv.display().to_string();
        let mut variables = match read(dotenv, MAX_OTHER) {
            Err(ReadError::Io(ErrorKind::NotFound)) => BTreeMap::new(),
            Err(error) => {
                self.problems.push(Problem::new(file, error.to_string()));
                BTreeMap::new()
            }
            Ok((text, metadata)) => {
                self.files.push(dotenv.to_owned());
                let (variables, problems) = env::parse_dotenv(&text, &file);
                self.problems.extend(problems);
                let holds_secret = variables.keys().any(|name| env::SECRETS.contains(&name.as_str()));
                if holds_secret {
                    self.check_mode(dotenv, &metadata);
                }
                variables
            }
        };
        // An empty value in the environment counts as none, so it does not hide one in the file.
        variables.extend(environment.into_iter().filter(|(_, value)| !value.trim().is_empty()));
        variables
    }

    fn secrets(&mut self, raw: &mut Raw) {
        for (key, path) in raw.secret_files() {
            match read(&path, MAX_OTHER) {
                Ok((text, metadata)) => {
                    self.check_mode(&path, &metadata);
                    raw.files.insert(path.clone(), Secret::new(text));
                    if !self.files.contains(&path) {
                        self.files.push(path);
                    }
                }
                Err(error) => self.problems.push(Problem::new(key, format!("{} {error}", path.display()))),
            }
        }
    }

    fn check_mode(&mut self, path: &Path, metadata: &Metadata) {
        if metadata.mode() & 0o004 != 0 {
            let path = path.display();
            self.warnings
                .push(format!("{path}: holds secrets and everybody on this machine may read it; chmod 600 {path}"));
        }
    }
}

/// Why a file was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum ReadError {
    #[error("cannot be read: {}", reason(*.0))]
    Io(ErrorKind),
    #[error("is larger than {0} bytes; this cannot be the right file")]
    TooLarge(u64),
    #[error("is no UTF-8 text; this cannot be the right file")]
    NotText,
}

fn reason(kind: ErrorKind) -> String {
    match kind {
        ErrorKind::NotFound => "there is no such file".into(),
        ErrorKind::PermissionDenied => {
            "permission denied; the user that runs pgpivot must be allowed to read it".into()
        }
        ErrorKind::IsADirectory => "it is a directory; name a file".into(),
        kind => kind.to_string(),
    }
}

fn read(path: &Path, most: u64) -> Result<(String, Metadata), ReadError> {
    let io = |error: std::io::Error| ReadError::Io(error.kind());
    let file = File::open(path).map_err(io)?;
    let metadata = file.metadata().map_err(io)?;
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > most {
        return Err(ReadError::TooLarge(most));
    }
    let text = String::from_utf8(bytes).map_err(|_| ReadError::NotText)?;
    Ok((text, metadata))
}

/// Certificates must be there; commands may still be installed later, so a missing one is only said.
fn check_named_files(config: &Config, warnings: &mut Vec<String>) -> Vec<Problem> {
    let mut problems: Vec<Problem> = Vec::new();
    for service in &config.services {
        let path = raw::service_path(service.name.as_str());
        for backend in &service.backends {
            let Some(ca_file) = &backend.tls.ca_file else { continue };
            let message = match read(ca_file, MAX_CONFIG) {
                Err(error) => error.to_string(),
                Ok((text, _)) if !text.contains("-----BEGIN ") => "holds no certificate in PEM format".into(),
                Ok(_) => continue,
            };
            let key = format!("{path}.backend.{}.tls.ca_file", backend.name);
            problems.push(Problem::new(key, format!("{} {message}", ca_file.display())));
        }
        let promote = match &service.failover.promoter {
            Promoter::Command(argv) => Some(argv),
            Promoter::None | Promoter::Postgres { .. } => None,
        };
        let commands = [("promote_command", promote), ("fence_command", service.failover.fence_command.as_ref())];
        for (key, argv) in commands.into_iter().filter_map(|(key, argv)| Some((key, argv?.first()?))) {
            let program = Path::new(argv);
            let executable = |metadata: Metadata| metadata.is_file() && metadata.mode() & 0o111 != 0;
            if program.is_absolute() && !program.metadata().is_ok_and(executable) {
                warnings.push(format!("{path}.failover.{key}: {argv} is no program that can be run"));
            }
        }
    }
    problems
}
