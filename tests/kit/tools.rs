//! The programs that judge, and the files they judge. A program that is missing fails the test with its package.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// A file of the repository.
pub(crate) fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Its text.
pub(crate) fn text(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// Files of a folder with this ending, by name.
pub(crate) fn files(folder: &str, ending: &str) -> Vec<String> {
    let all = std::fs::read_dir(path(folder)).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut files: Vec<String> = all.filter(|name| name.ends_with(ending)).map(|n| format!("{folder}/{n}")).collect();
    files.sort();
    assert!(!files.is_empty(), "nothing in {folder}");
    files
}

pub(crate) fn run(command: &mut Command, package: &str) -> Output {
    command.output().unwrap_or_else(|e| panic!("{command:?}: {e}; install it: {package}"))
}

/// Runs to its good end.
pub(crate) fn must(command: &mut Command, package: &str) -> String {
    let output = run(command, package);
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {said}");
    said
}

pub(crate) fn promtool(arguments: &[&str]) -> Command {
    let mut command = Command::new("/usr/bin/promtool");
    command.args(arguments).current_dir(path(""));
    command
}

/// What brings promtool and prometheus.
pub(crate) const PROMETHEUS: &str = "apt-get install prometheus";

/// A program of the environment that `scripts/install-test-needs` makes for kubernetes-validate.
pub(crate) fn from_pypi(program: &str) -> Command {
    Command::new(path("target/test-needs/kubernetes-validate/bin").join(program))
}

/// What makes that.
pub(crate) const PYPI: &str = "scripts/install-test-needs";

/// The documents of a YAML file.
pub(crate) fn yaml(name: &str) -> Vec<Value> {
    let read = "import json, sys, yaml\nprint(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";
    let said = must(from_pypi("python").args(["-c", read]).arg(path(name)), PYPI);
    serde_json::from_str(&said).unwrap_or_else(|e| panic!("{name}: {e}"))
}
