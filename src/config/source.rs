//! The one file of the room that reads (with `source/identity` for certificates of listeners): the configuration file, `.env`, the process's environment, and the files that
//! hold secrets. Judges nothing but whether a file can be read and who else may read it.

mod identity;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{File, Metadata};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::env::{self, Env, SqlEndpoint};
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

/// Read from the working directory.
const DOTENV: &str = ".env";
/// The configuration file may be this large.
const MAX_CONFIG: u64 = 1 << 20;
/// Every other file.
const MAX_OTHER: u64 = 64 << 10;

/// Loads the file at `path`, or without one what the environment says. The environment wins over `.env` in the
/// working directory, and both win over the file. Relative paths are relative to the working directory.
pub fn load(path: Option<&Path>) -> Result<Loaded, ConfigError> {
    let mut reading = Reading::default();
    let environment = reading.environment();
    reading.load(path, Path::new(DOTENV), environment)
}

/// The login that `PRIMARY_CLUSTER_ENDPOINT` describes, from the environment over `.env` in the working directory;
/// `None` = it is not set.
pub fn primary_endpoint() -> Result<Option<SqlEndpoint>, ConfigError> {
    let mut reading = Reading::default();
    let environment = reading.environment();
    let variables = reading.variables(Path::new(DOTENV), environment);
    match (env::parse_endpoint(&variables), reading.problems) {
        (Ok(endpoint), problems) if problems.is_empty() => Ok(endpoint),
        (Ok(_), problems) => Err(ConfigError { problems }),
        (Err(problem), mut problems) => {
            problems.push(problem);
            Err(ConfigError { problems })
        }
    }
}

/// The environment over what `.env` in the working directory says, for programs that run without a configuration.
pub fn variables() -> Result<BTreeMap<String, String>, ConfigError> {
    let mut reading = Reading::default();
    let environment = reading.environment();
    let variables = reading.variables(Path::new(".env"), environment);
    if reading.problems.is_empty() { Ok(variables) } else { Err(ConfigError { problems: reading.problems }) }
}

/// [`load`] with a `.env` file and an environment of one's own.
pub fn load_from(
    path: Option<&Path>,
    dotenv: &Path,
    environment: BTreeMap<String, String>,
) -> Result<Loaded, ConfigError> {
    Reading::default().load(path, dotenv, environment)
}

#[derive(Default)]
struct Reading {
    files: Vec<PathBuf>,
    problems: Vec<Problem>,
    warnings: Vec<String>,
}

impl Reading {
    /// The process's own.
    fn environment(&mut self) -> BTreeMap<String, String> {
        let mut environment = BTreeMap::new();
        for (name, value) in std::env::vars_os() {
            // A name that is no text cannot be ours.
            let Ok(name) = name.into_string() else { continue };
            match value.into_string() {
                Ok(value) => {
                    environment.insert(name, value);
                }
                Err(_) if env::NAMES.contains(&name.as_str()) => {
                    self.problems.push(Problem::new(name, "is no UTF-8 text; write it as such"));
                }
                Err(_) => {}
            }
        }
        environment
    }

    fn load(
        mut self,
        path: Option<&Path>,
        dotenv: &Path,
        environment: BTreeMap<String, String>,
    ) -> Result<Loaded, ConfigError> {
        let mut raw = match path {
            Some(path) => self.config(path),
            None => Raw::default(),
        };
        let env = Env::parse(&self.variables(dotenv, environment));
        self.secrets(&mut raw);
        raw.problems.extend(self.problems);
        for warning in &self.warnings {
            raw.problems.warn(warning);
        }
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let (mut config, mut warnings) =
            validate::build(raw, &env, cores).map_err(|problems| ConfigError { problems })?;
        let mut problems = check_named_files(&config, &mut warnings);
        identity::read(&mut config, &mut self.files, &mut problems, &mut warnings);
        if !problems.is_empty() {
            return Err(ConfigError { problems });
        }
        Ok(Loaded { config, warnings, files: self.files })
    }

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
            Promoter::None | Promoter::Postgres { .. } | Promoter::CockroachCloud | Promoter::CockroachSql => None,
        };
        let commands = [
            ("promote_command", promote),
            ("fence_command", service.failover.fence_command.as_ref()),
            ("rejoin_command", service.failover.rejoin_command.as_ref()),
            ("follow_command", service.failover.follow_command.as_ref()),
        ];
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::diff::keys;
    use super::super::{Login, ProbeKind, Replication, Service};
    use super::*;
    use crate::types::WallTime;

    fn root() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR"))
    }

    /// The TOML files of a folder, by name.
    fn samples(folder: &str) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|e| e == "toml")).collect();
        files.sort();
        assert!(!files.is_empty(), "{folder} is empty");
        files
    }

    /// Examples that name no file for it take the secret from the environment.
    fn surroundings(text: &str) -> Env {
        let secret = ("COCKROACH_API_SECRET_KEY".to_owned(), "CCDB1_0123456789abcdef".to_owned());
        let wants = text.contains("export COCKROACH_API_SECRET_KEY=");
        Env::parse(&wants.then_some(secret).into_iter().collect())
    }

    /// As if every file that a sample names could be read.
    fn build(file: &Path) -> Result<(Config, Vec<String>), ConfigError> {
        let text = std::fs::read_to_string(file).unwrap();
        let mut raw = raw::parse(&text);
        let env = if file.starts_with(root().join("config")) { surroundings(&text) } else { Env::default() };
        for (key, path) in raw.secret_files() {
            let text = match key.rsplit('.').next() {
                Some("token_file") => "alice:0123456789abcdef",
                Some("secret_file") => "CCDB1_0123456789abcdef\n",
                _ => "a password",
            };
            raw.files.insert(path, Secret::new(text.into()));
        }
        validate::build(raw, &env, 2).map_err(|problems| ConfigError { problems })
    }

    fn sample(name: &str) -> Service {
        let (config, _) = build(&root().join("tests/samples/valid").join(name)).unwrap();
        config.services.into_iter().next().unwrap()
    }

    /// A folder with files, and a load from it that sees no other environment.
    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new(files: &[(&str, &str)]) -> Self {
            let folder = Self(tempfile::tempdir().unwrap());
            for (name, text) in files {
                std::fs::write(folder.path(name), text.replace("HERE", folder.text())).unwrap();
                folder.mode(name, 0o600);
            }
            folder
        }

        fn text(&self) -> &str {
            self.0.path().to_str().unwrap()
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn mode(&self, name: &str, mode: u32) {
            std::fs::set_permissions(self.path(name), std::fs::Permissions::from_mode(mode)).unwrap();
        }

        fn load(&self, environment: &[(&str, &str)]) -> Result<Loaded, String> {
            let environment = environment.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
            let file = self.path("pgpivot.toml");
            load_from(file.exists().then_some(file.as_path()), &self.path(".env"), environment)
                .map_err(|error| error.to_string().replace(self.text(), "HERE"))
        }
    }

    fn login(loaded: &Loaded) -> &Login {
        match &loaded.config.services[0].probe.kind {
            ProbeKind::Sql { login } => login,
            other => panic!("{other:?} has no login"),
        }
    }

    const PAIR: &str =
        "[service.main]\nkind = 'postgres'\n[[service.main.backend]]\nname = 'a'\naddresses = ['db1:5432']\n";

    #[test]
    fn every_invalid_sample_says_exactly_what_is_wrong_with_it() {
        let mut wrong = Vec::new();
        for file in samples("tests/samples/invalid") {
            let found = match build(&file) {
                Ok(_) => "it is valid\n".to_owned(),
                Err(error) => format!("{error}\n"),
            };
            let expected = std::fs::read_to_string(file.with_extension("txt")).unwrap_or_default();
            if found != expected {
                wrong.push(format!("=== {}\n{found}", file.display()));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn every_valid_sample_and_every_example_is_valid() {
        for file in samples("tests/samples/valid").into_iter().chain(samples("config")) {
            if let Err(error) = build(&file) {
                panic!("{}: {error}", file.display());
            }
        }
    }

    #[test]
    fn the_examples_bring_no_warning() {
        for file in samples("config") {
            let (_, warnings) = build(&file).unwrap();
            assert_eq!(warnings, Vec::<String>::new(), "{}", file.display());
        }
    }

    #[test]
    fn every_key_of_the_file_reaches_its_setting() {
        let (everything, minimal) = (sample("everything.toml"), sample("minimal.toml"));
        // These must keep their default for the sample to be valid; other samples change them.
        let kept = [
            "kind",
            "promoter",
            "promote_command",
            "authority",
            "standby_serves",
            "survivors",
            "mode",
            "cluster_id",
            "member",
        ];
        let check = |section: &str, ours: Vec<keys::Line>, theirs: Vec<keys::Line>| {
            for ((key, ours), (_, theirs)) in ours.into_iter().zip(theirs) {
                assert!(ours != theirs || kept.contains(&key.as_str()), "{section}.{key} is {ours} in both");
            }
        };
        check("probe", keys::probe(&everything.probe), keys::probe(&minimal.probe));
        check("failover", keys::failover(&everything), keys::failover(&minimal));
        check("read_only", keys::read_only(&everything), keys::read_only(&minimal));
        check("connection", keys::connection(&everything.connection), keys::connection(&minimal.connection));
        check(
            "listener",
            keys::listener(&everything.listeners[0])[2..].to_vec(),
            keys::listener(&minimal.listeners[0])[2..].to_vec(),
        );
        check("backend", keys::backend(&everything.backends[0]), keys::backend(&minimal.backends[0]));
        check("backend", keys::tls(&everything.backends[0]), keys::tls(&minimal.backends[0]));
        assert_eq!((everything.workers, minimal.workers), (3, 2));
        assert_eq!(keys::tls(&everything.backends[1])[0].1, "\"require\"", "the probe's tls is every backend's");
        let (config, _) = build(&root().join("tests/samples/valid/everything.toml")).unwrap();
        assert_eq!(config.admin.listen.unwrap().to_string(), "0.0.0.0:9404");
        assert_eq!(config.admin.metrics_listen.unwrap().to_string(), "127.0.0.1:9405");
        assert_eq!(config.admin.tokens[0].0, "alice");
        assert_eq!(config.state.path, Path::new("/srv/pgpivot"));
    }

    #[test]
    fn every_key_of_the_replication_tables_reaches_its_setting() {
        let (cloud, sql) = (sample("cockroach-cloud.toml"), sample("cockroach-sql.toml"));
        let example = |name: &str| build(&root().join("config").join(name)).unwrap().0.services.remove(0);
        let (plain_cloud, plain_sql) = (example("cockroach-cloud.toml"), example("cockroach-self-hosted.toml"));
        for (everything, plain) in [(&cloud, &plain_cloud), (&sql, &plain_sql)] {
            let lines = |service: &Service| keys::replication(service.replication.as_ref().unwrap());
            let ((table, ours), (same, theirs)) = (lines(everything), lines(plain));
            assert_eq!(table, same);
            for ((key, ours), (_, theirs)) in ours.into_iter().zip(theirs) {
                assert!(ours != theirs || key == "secret_file", "{table}.{key} is {ours} in both");
            }
        }
        let Some(Replication::Cloud(asked)) = &cloud.replication else { panic!("{:?}", cloud.replication) };
        assert_eq!(asked.secret.expose(), "CCDB1_0123456789abcdef");
        assert_eq!(asked.failover_at, Some(WallTime(1_769_860_800_000_000)));
        let ids: Vec<&str> = cloud.backends.iter().filter_map(|backend| backend.cluster_id.as_deref()).collect();
        assert_eq!(ids, ["00000000-0000-0000-0000-00000000000a", "00000000-0000-0000-0000-00000000000b"]);
        assert_eq!(cloud.failover.max_replication_lag.as_secs(), 90);
        let Some(Replication::Sql(steered)) = &sql.replication else { panic!("{:?}", sql.replication) };
        assert_eq!(steered.login.password, Some(Secret::new("a password".into())));
        let promoters = [&plain_cloud, &plain_sql].map(|service| service.failover.promoter.as_str());
        assert_eq!(promoters, ["cockroach_cloud", "cockroach_sql"]);
    }

    #[test]
    fn the_written_defaults_of_the_replication_examples_are_the_defaults() {
        for name in ["cockroach-cloud.toml", "cockroach-self-hosted.toml"] {
            let file = root().join("config").join(name);
            let text = std::fs::read_to_string(&file).unwrap();
            let chosen =
                ["name", "cluster_id", "role", "addresses", "kind = \"cockroach\"", "address ", "path", "user"];
            let bare: String = (text.lines())
                .filter(|line| line.starts_with('[') || chosen.iter().any(|key| line.starts_with(key)))
                .map(|line| format!("{line}\n"))
                .collect();
            let found = validate::build(raw::parse(&bare), &surroundings(&text), 2).unwrap().0;
            assert_eq!(found, build(&file).unwrap().0, "{name}");
        }
    }

    #[test]
    fn one_login_serves_probe_and_promoter_and_each_may_have_its_own() {
        let (config, _) = build(&root().join("tests/samples/valid/cockroach-observe.toml")).unwrap();
        let logins: Vec<_> = (config.services.iter())
            .filter_map(|service| match &service.replication {
                Some(Replication::Sql(sql)) => Some((sql.login.user.as_str(), sql.login.password.is_some())),
                _ => None,
            })
            .collect();
        assert_eq!(logins, [("operator", true), ("operator", false)]);
        let own = "[service.main]\nkind = 'cockroach'\n[service.main.cockroach_sql]\nuser = 'operator'\n\
            [[service.main.backend]]\nname = 'a'\naddresses = ['a:1']\nrole = 'primary'\n\
            [[service.main.backend]]\nname = 'b'\naddresses = ['b:1']\n";
        let password = |more: &str| {
            let folder = Folder::new(&[("pgpivot.toml", &format!("{own}{more}"))]);
            let loaded = folder.load(&[("PGPIVOT_PASSWORD", "secret")]).unwrap();
            match &loaded.config.services[0].replication {
                Some(Replication::Sql(sql)) => sql.login.password.is_some(),
                other => panic!("{other:?}"),
            }
        };
        assert!(password(""), "it has no other owner");
        assert!(!password("[service.main.probe]\nkind = 'sql'\nuser = 'prober'\n"), "it is the prober's");
    }

    #[test]
    fn presets_stand_behind_what_is_written_beside_them() {
        let probe = sample("everything.toml").probe;
        assert_eq!((probe.fast_interval.as_millis(), probe.timeout.as_millis(), probe.fall), (250, 900, 4));
        let (config, _) = build(&root().join("config/fast-detection.toml")).unwrap();
        let probe = &config.services[0].probe;
        assert_eq!((probe.fast_interval.as_millis(), probe.timeout.as_millis(), probe.fall), (300, 1000, 3));
        assert_eq!(probe.hang_trigger.as_millis(), 500);
    }

    #[test]
    fn the_environment_wins_over_dotenv_and_both_over_the_file() {
        let folder = Folder::new(&[
            ("pgpivot.toml", &format!("{PAIR}[service.main.probe]\nuser = 'file'\ndatabase = 'file'\nfall = 9\n")),
            (".env", "DB_USER=dotenv\nDB_NAME=dotenv\n"),
        ]);
        let loaded = folder.load(&[("DB_USER", "environment"), ("DB_NAME", "")]).unwrap();
        let login = login(&loaded);
        assert_eq!((login.user.as_str(), login.database.as_str()), ("environment", "dotenv"));
        assert_eq!(loaded.config.services[0].probe.fall, 9);
        assert_eq!(loaded.files, [folder.path("pgpivot.toml"), folder.path(".env")]);
    }

    #[test]
    fn the_example_environment_works_and_names_every_variable() {
        let text = std::fs::read_to_string(root().join(".env.example")).unwrap();
        let folder = Folder::new(&[(".env", &text)]);
        let loaded = folder.load(&[]).unwrap();
        assert_eq!(loaded.config.services[0].backends.len(), 2);
        assert_eq!(loaded.warnings, Vec::<String>::new());
        let set = |line: &str| line.trim_start_matches('#').split_once('=').map(|(name, _)| name.to_owned());
        let mut named: Vec<String> = text.lines().filter(|line| !line.starts_with("# ")).filter_map(set).collect();
        let mut known: Vec<&str> = env::NAMES.to_vec();
        named.sort();
        known.sort_unstable();
        assert_eq!(named, known);
        // With every comment sign taken away it contradicts itself, but no value is malformed.
        let all: String = text
            .lines()
            .filter(|line| !line.starts_with("# "))
            .map(|l| l.trim_start_matches('#').to_owned() + "\n")
            .collect();
        let error = Folder::new(&[(".env", &all)]).load(&[]).unwrap_err();
        assert!(!error.contains(" is not a "), "{error}");
    }

    #[test]
    fn a_password_comes_from_its_file_without_the_line_end() {
        let text = format!("{PAIR}[service.main.probe]\npassword_file = 'HERE/password'\n");
        let folder = Folder::new(&[("pgpivot.toml", &text), ("password", " p w \r\n")]);
        let loaded = folder.load(&[]).unwrap();
        assert_eq!(login(&loaded).password, Some(Secret::new(" p w ".into())));
        assert_eq!(loaded.warnings, Vec::<String>::new());
        assert_eq!(loaded.files, [folder.path("pgpivot.toml"), folder.path("password")]);
        assert!(!format!("{loaded:?}").contains(" p w "));
        let loaded = folder.load(&[("PGPIVOT_PASSWORD", "other")]).unwrap();
        assert_eq!(login(&loaded).password, Some(Secret::new("other".into())));
        assert_eq!(loaded.warnings, ["PGPIVOT_PASSWORD is used instead of service.main.probe.password_file"]);
    }

    #[test]
    fn secrets_that_everybody_may_read_bring_a_warning() {
        let text = format!("{PAIR}[service.main.probe]\npassword_file = 'HERE/password'\n");
        let folder = Folder::new(&[("pgpivot.toml", &text), ("password", "secret"), (".env", "DB_PASSWORD=x\n")]);
        folder.mode("password", 0o644);
        folder.mode(".env", 0o640);
        let warnings = folder.load(&[]).unwrap().warnings;
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(warnings[0].ends_with(&format!("chmod 600 {}", folder.path("password").display())));
        folder.mode(".env", 0o644);
        assert_eq!(folder.load(&[]).unwrap().warnings.len(), 3);
    }

    #[test]
    fn every_problem_of_every_file_comes_in_one_run() {
        let text = "[admin]\ntoken_file = 'HERE/token'\n[service.main]\nkind = 'postgres'\nworker = 1\n\
            [[service.main.backend]]\nname = 'a'\naddresses = ['db1:5432']\n[service.main.probe]\n\
            password_file = 'HERE/none'\ninterval = '2x'\n\
            [service.main.failover]\npromoter_login = { user = 'x', password_file = 'HERE/empty' }\n";
        let token = "# who may command\n\nalice:short\nbob 0123456789abcdef\n:0123456789abcdef\ncarol:\ndora:short\n";
        let folder =
            Folder::new(&[("pgpivot.toml", text), ("token", token), ("empty", "\n"), (".env", "DB_PORT=x\nwhat\n")]);
        let expected = "\
service.main.worker: is not a known key; did you mean workers?
HERE/.env:2: is not a setting; write NAME=value, or # before a comment
service.main.probe.password_file: HERE/none cannot be read: there is no such file
DB_PORT: \"x\" is not a port; write a number from 1 to 65535
service.main.probe.interval: \"2x\" is not a duration; write for example \"2s\" or \"500ms\"
service.main.failover.promoter_login.password_file: names an empty file; write the password into it
admin.token_file: has no name:token in line 4; write for example alice:… there
admin.token_file: has no usable name before the colon in line 5
admin.token_file: has no token, or one with odd characters, in line 6
admin.token_file: gives line 7 the token of another name; each name needs its own";
        assert_eq!(folder.load(&[]).unwrap_err(), expected);
    }

    #[test]
    fn a_file_that_is_no_configuration_says_why() {
        let folder = Folder::new(&[]);
        let load = |name: &str| load_from(Some(&folder.path(name)), &folder.path(".env"), BTreeMap::new()).unwrap_err();
        let ends = |name: &str, end: &str| {
            let text = load(name).to_string();
            assert!(text.ends_with(end) && text.starts_with(folder.text()), "{text}");
        };
        std::fs::create_dir(folder.path("folder")).unwrap();
        std::fs::write(folder.path("bytes"), [0xff, 0xfe]).unwrap();
        std::fs::write(folder.path("large"), vec![b'#'; MAX_CONFIG as usize + 1]).unwrap();
        ends("missing", ": cannot be read: there is no such file");
        ends("folder", ": cannot be read: it is a directory; name a file");
        ends("bytes", ": is no UTF-8 text; this cannot be the right file");
        ends("large", ": is larger than 1048576 bytes; this cannot be the right file");
    }

    #[test]
    fn without_a_file_and_without_variables_both_ways_are_shown() {
        let error = Folder::new(&[]).load(&[]).unwrap_err();
        assert!(error.contains("[service.main]") && error.contains("DATABASE_URL"), "{error}");
    }

    #[test]
    fn certificates_must_be_there_and_commands_may_come_later() {
        let tls = |file: &str| {
            let text = format!(
                "{PAIR}tls = {{ mode = 'verify-full', ca_file = 'HERE/{file}' }}\n\
                [service.main.failover]\nfence_command = ['HERE/fence']\n"
            );
            Folder::new(&[("pgpivot.toml", &text), ("ca.pem", "-----BEGIN CERTIFICATE-----\n"), ("text", "x")])
                .load(&[])
        };
        let warnings = tls("ca.pem").unwrap().warnings;
        assert!(warnings.len() == 1 && warnings[0].ends_with("/fence is no program that can be run"), "{warnings:?}");
        let at = "service.main.backend.a.tls.ca_file: HERE/";
        assert_eq!(tls("none").unwrap_err(), format!("{at}none cannot be read: there is no such file"));
        assert_eq!(tls("text").unwrap_err(), format!("{at}text holds no certificate in PEM format"));
    }
}
