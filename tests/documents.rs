//! The guides and the container files as far as no container engine is needed: every command they show is one, every link
//! leads somewhere, every variable is known, and the files name what there is. The README's commands are `command_line`'s.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::{Command, Output};

/// Every page of `docs`, and the one on containers. The runbook's are `kit`'s.
fn guides() -> Vec<String> {
    let folder = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")).unwrap();
    let names = folder.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut guides: Vec<String> =
        names.filter(|name| name.ends_with(".md")).map(|name| format!("docs/{name}")).collect();
    guides.push("docker/README.md".into());
    guides.sort();
    guides
}

fn text(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn run(program: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    // The examples want a secret; nothing else of the surroundings counts.
    command.args(arguments).env_clear().env("COCKROACH_API_SECRET_KEY", "CCDB1_0123456789abcdef");
    command.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap()
}

/// The lines of the `sh` blocks, and what stands in backquotes and begins with `proxyctl `.
fn commands(guide: &str) -> Vec<String> {
    let text = text(guide);
    let blocks = text.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    let typed = blocks.flat_map(str::lines).map(str::to_owned).collect::<Vec<_>>();
    let quoted = text.split('`').filter(|part| part.starts_with("proxyctl ") && !part.contains(['\n', 'X']));
    typed.into_iter().chain(quoted.map(str::to_owned)).collect()
}

/// As clap reads it; nothing is carried out.
fn check_proxyctl(words: &[&str], where_from: &str) {
    let output = run(env!("CARGO_BIN_EXE_proxyctl"), &[words, &["--help"]].concat());
    if output.status.success() {
        return;
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    panic!("{where_from}: proxyctl {words:?}: {said}");
}

#[test]
fn every_command_of_the_guides_is_one() {
    let mut checked = 0;
    for guide in &guides() {
        for command in commands(guide) {
            checked += 1;
            let words: Vec<&str> = command.split_whitespace().collect();
            match words.as_slice() {
                // Typed on a real pair by `it::runbook`.
                ["psql" | "curl", ..] if guide == "docs/troubleshooting.md" => {}
                // Carried out by hand: each is a run of minutes, and of a nightly compiler.
                [.., "cargo", "test", "--features", "fuzz", "--test", "fuzz"]
                | [.., "cargo", "test", "--release", "--features", "fuzz", "--test", "fuzz"] => {
                    assert!(Path::new("tests/fuzz.rs").is_file());
                }
                ["cargo", "install", "cargo-fuzz"] => {}
                ["cargo", "+nightly", "fuzz", "run", target] => {
                    assert!(text("fuzz/Cargo.toml").contains(&format!("name = \"{target}\"")), "{target}");
                }
                ["scripts/test"] => assert!(Path::new("scripts/test").is_file()),
                ["proxyctl", rest @ ..] => check_proxyctl(rest, guide),
                ["pgpivot", "--check", _] => {
                    let output = run(env!("CARGO_BIN_EXE_pgpivot"), &words[1..]);
                    assert!(output.status.success(), "{command}: {output:?}");
                }
                ["cargo", "run", "--", rest @ ..] => {
                    let output = run(env!("CARGO_BIN_EXE_pgpivot"), &[rest, &["--help"]].concat());
                    assert!(output.status.success(), "{command}: {output:?}");
                }
                ["docker", "run", rest @ ..] => {
                    let image = rest.iter().position(|word| *word == "pgpivot").expect("the image");
                    match &rest[image + 1..] {
                        [] | ["pgpivot"] => {}
                        ["proxyctl", inside @ ..] => check_proxyctl(inside, guide),
                        other => panic!("{guide}: what is {other:?}?"),
                    }
                }
                ["docker", "build", "-t", "pgpivot", "."] => assert!(Path::new("Dockerfile").is_file()),
                ["docker", "compose", rest @ ..] => check_compose(rest),
                ["promtool", "check" | "test", "rules", file] => assert!(Path::new(file).is_file(), "{file}"),
                ["kubectl", "apply", "-f", file] => assert!(Path::new(file).is_file(), "{file}"),
                ["kubectl", "exec", "deploy/pgpivot", "--", "proxyctl", rest @ ..] => check_proxyctl(rest, guide),
                ["kubectl", "create", "secret", "generic", "pgpivot", files @ ..] => {
                    let mounted = text("docker/kubernetes/self.yaml");
                    for file in files {
                        let name = file.strip_prefix("--from-file=").unwrap();
                        assert!(mounted.contains(&format!("/etc/pgpivot/secret/{name}\"")), "{name}");
                    }
                }
                _ => panic!("{guide}: what is {command}?"),
            }
        }
    }
    assert!(checked > 100, "only {checked} commands were found");
}

/// With `PGPIVOT_WRITE_SAMPLES` set the page is written instead.
#[test]
fn the_configuration_reference_is_what_pgpivot_prints() {
    let output = run(env!("CARGO_BIN_EXE_pgpivot"), &["--reference"]);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let printed = String::from_utf8(output.stdout).unwrap();
    if std::env::var_os("PGPIVOT_WRITE_SAMPLES").is_some() {
        std::fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md"), &printed).unwrap();
    }
    let page = text("docs/configuration.md");
    let differs = page.lines().zip(printed.lines()).find(|(page, printed)| page != printed);
    assert!(page == printed, "{differs:?}: if what is printed is right, run with PGPIVOT_WRITE_SAMPLES=1");
}

#[test]
fn the_graph_on_the_page_about_failovers_is_the_one_that_is_printed() {
    let output = run(env!("CARGO_BIN_EXE_proxyctl"), &["explain", "--graph"]);
    let page = text("docs/failover.md");
    let drawn = page.split("```mermaid\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    assert_eq!(drawn, String::from_utf8(output.stdout).unwrap());
}

#[test]
fn every_piece_of_a_configuration_in_the_guides_has_keys_that_there_are() {
    let mut pieces = 0;
    for guide in guides().into_iter().chain(["README.md".to_owned()]) {
        let text = text(&guide);
        for piece in text.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()) {
            pieces += 1;
            let problems = pgpivot::config::raw::parse(piece).problems.into_result().err();
            assert_eq!(problems, None, "{guide}: {piece}");
        }
    }
    assert!(pieces >= 6, "only {pieces} were found");
}

#[test]
fn the_index_leads_to_every_page() {
    let index = text("docs/README.md");
    for guide in guides().iter().filter(|guide| *guide != "docs/README.md") {
        let link = guide.strip_prefix("docs/").map_or_else(|| format!("../{guide}"), str::to_owned);
        assert!(index.contains(&format!("]({link})")), "docs/README.md does not lead to {guide}");
    }
}

/// Names of services and profiles that a compose command takes.
fn check_compose(words: &[&str]) {
    let compose = settings(&text("compose.yaml"));
    match words {
        ["--profile", profile, "up", "-d"] => {
            let wanted = format!("[\"{profile}\"]");
            assert!(compose.iter().any(|(key, value)| key.ends_with(".profiles") && *value == wanted), "{profile}");
        }
        ["up", "-d", service] => {
            let own = format!("services.{service}.");
            assert!(compose.iter().any(|(key, _)| key.starts_with(&own)), "{service}");
            assert!(!compose.iter().any(|(key, _)| *key == format!("{own}profiles")), "{service} needs a profile");
        }
        _ => panic!("what is docker compose {words:?}?"),
    }
}

/// The scalars of a YAML file of nested maps, with their key paths; lists stand in one line, as JSON has them.
fn settings(yaml: &str) -> Vec<(String, String)> {
    let (mut path, mut found): (Vec<(usize, String)>, _) = (Vec::new(), Vec::new());
    for line in yaml.lines().filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#')) {
        let indent = line.len() - line.trim_start().len();
        let (key, value) = line.trim().split_once(':').unwrap_or_else(|| panic!("no key in {line:?}"));
        assert!(indent % 2 == 0 && !key.contains([' ', '"', '\t']), "{line:?}");
        path.retain(|(at, _)| *at < indent);
        path.push((indent, key.to_owned()));
        let whole = path.iter().map(|(_, key)| key.as_str()).collect::<Vec<_>>().join(".");
        let value = value.trim();
        if value.starts_with('[') {
            serde_json::from_str::<Vec<String>>(value).unwrap_or_else(|e| panic!("{whole}: {value}: {e}"));
        }
        assert!(!found.iter().any(|(known, _)| *known == whole), "{whole} stands twice");
        found.push((whole, value.trim_matches('"').to_owned()));
    }
    found
}

#[test]
fn the_compose_file_watches_alone_and_with_its_profile_serves_applications() {
    let compose = settings(&text("compose.yaml"));
    let value = |key: &str| compose.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str());
    let words = |key: &str| serde_json::from_str::<Vec<String>>(value(key).unwrap()).unwrap();
    for service in ["failover-automation", "service"] {
        let of = |key: &str| format!("services.{service}.{key}");
        assert_eq!((value(&of("env_file")), value(&of("image"))), (Some(".env"), Some("pgpivot")));
        assert_eq!((value(&of("build")), value(&of("read_only"))), (Some("."), Some("true")));
        let command = words(&of("command"));
        assert_eq!(command[0], "proxyctl");
        check_proxyctl(&command[1..].iter().map(String::as_str).collect::<Vec<_>>(), "compose.yaml");
    }
    assert_eq!(words("services.failover-automation.command"), ["proxyctl", "monitor"]);
    // Only who holds the state decides, and it is kept.
    assert_eq!(words("services.failover-automation.volumes"), ["state:/var/lib/pgpivot"]);
    assert!(value("volumes.state").is_some() && value("services.service.volumes").is_none());
    // Both are one machine to each other, and from outside only this machine reaches it.
    assert_eq!(value("services.service.network_mode"), Some("service:failover-automation"));
    let ports = ["127.0.0.1:8080:8080", "127.0.0.1:9090:9090", "127.0.0.1:3000:3000"];
    assert_eq!(words("services.failover-automation.ports"), ports);
}

#[test]
fn the_compose_file_watches_the_watcher_with_the_rules_and_the_dashboard() {
    let compose = settings(&text("compose.yaml"));
    let value = |key: &str| compose.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str());
    let words = |key: &str| serde_json::from_str::<Vec<String>>(value(key).unwrap()).unwrap();
    for service in ["prometheus", "grafana"] {
        let of = |key: &str| format!("services.{service}.{key}");
        assert_eq!(words(&of("profiles")), ["monitoring"]);
        // The controller answers on its own loopback alone.
        assert_eq!(value(&of("network_mode")), Some("service:failover-automation"));
        let image = value(&of("image")).unwrap();
        assert!(image.split_once(':').is_some_and(|(_, version)| version != "latest"), "{image}");
        for volume in words(&of("volumes")) {
            let (here, _) = volume.split_once(':').unwrap();
            let known = if here.starts_with("./") {
                Path::new(env!("CARGO_MANIFEST_DIR")).join(here).exists()
            } else {
                value(&format!("volumes.{here}")).is_some()
            };
            assert!(known, "{volume}");
        }
    }
    assert!(words("services.prometheus.command").contains(&"--config.file=/etc/prometheus/prometheus.yml".to_owned()));
    assert!(words("services.prometheus.volumes").contains(&"./docker/prometheus:/etc/prometheus:ro".to_owned()));
}

#[test]
fn the_image_is_built_by_the_right_compiler_runs_as_nobody_special_and_is_healthy_when_ready() {
    let docker = text("Dockerfile").replace("\\\n", "");
    let lines: Vec<&str> = docker.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    let of =
        |word: &str| lines.iter().filter_map(|line| line.strip_prefix(word)?.strip_prefix(' ')).collect::<Vec<_>>();
    let known = ["FROM", "WORKDIR", "COPY", "RUN", "USER", "ENV", "VOLUME", "HEALTHCHECK", "CMD"];
    for line in &lines {
        assert!(known.contains(&line.split(' ').next().unwrap()), "{line}");
    }
    let manifest = text("Cargo.toml");
    let compiler = manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).unwrap().trim_matches('"');
    assert_eq!(of("FROM"), [format!("rust:{compiler}-slim-bookworm AS build"), "debian:bookworm-slim".to_owned()]);
    let user: u32 = of("USER")[0].parse().unwrap();
    assert!(user > 0 && docker.contains(&format!("--uid {user} ")));
    assert_eq!((of("ENV"), of("VOLUME")), (vec!["STATE_DIRECTORY=/var/lib/pgpivot"], vec!["/var/lib/pgpivot"]));
    let (_, check) = of("HEALTHCHECK")[0].split_once(" CMD ").unwrap();
    let check: Vec<String> = serde_json::from_str(check).unwrap();
    assert_eq!(check.last().unwrap(), "http://127.0.0.1:8404/ready");
    assert_eq!(serde_json::from_str::<Vec<String>>(of("CMD")[0]).unwrap(), ["proxyctl", "monitor"]);
    // Secrets stay out of the image.
    assert!(text(".dockerignore").lines().any(|line| line == ".env"));
}

#[test]
fn every_link_leads_somewhere() {
    let others = ["README.md", "examples/README.md"].map(str::to_owned);
    for guide in guides().into_iter().chain(others) {
        let page = text(&guide);
        for link in page.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.starts_with("https://") {
                continue;
            }
            let (file, anchor) = link.split_once('#').map_or((link, None), |(file, anchor)| (file, Some(anchor)));
            let folder = Path::new(&guide).parent().unwrap();
            let target = if file.is_empty() { Path::new(&guide).to_owned() } else { folder.join(file) };
            assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(&target).exists(), "{guide}: {link}");
            if let Some(anchor) = anchor {
                let page = text(target.to_str().unwrap());
                let found = page.lines().filter(|line| line.starts_with('#')).any(|line| anchor_of(line) == anchor);
                assert!(found, "{guide}: {link} is no heading there");
            }
        }
    }
}

/// As GitHub makes it of a heading.
fn anchor_of(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    heading.trim_start_matches('#').trim().to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-")
}

#[test]
fn every_variable_of_the_guides_is_in_the_example() {
    // Roles of the Cloud, an option of sockets, and what only our own tests read.
    let tests = ["PGPIVOT_FUZZ_SEED", "PGPIVOT_FUZZ_CASES", "PGPIVOT_FUZZ_CORPUS", "COCKROACH_CLOUD_OPENAPI"];
    let others =
        ["CLUSTER_ADMIN", "CLUSTER_DEVELOPER", "TCP_USER_TIMEOUT"].into_iter().chain(tests).collect::<Vec<_>>();
    let example = text(".env.example");
    for guide in guides() {
        let text = text(&guide);
        let shout = |word: &&str| {
            word.contains('_') && word.len() > 1 && word.chars().all(|c| c.is_ascii_uppercase() || c == '_')
        };
        let variables: Vec<&str> = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(shout).collect();
        for name in variables.iter().filter(|name| !others.contains(name)) {
            assert!(example.contains(&format!("{name}=")), "{guide}: {name} is not in .env.example");
        }
    }
}
