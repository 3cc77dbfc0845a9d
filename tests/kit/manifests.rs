//! The Kubernetes manifests: they are valid without a cluster, their configuration is, what they say of pgpivot is so,
//! and nothing that decides runs twice.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::{Value, json};
use toml::Table;

use super::served::{Served, get};
use super::tools::{PYPI, files, from_pypi, must, path, run, text, yaml};

const FOLDER: &str = "docker/kubernetes";
/// The oldest and the newest schema that are asked for; kubernetes-validate brings them.
const SCHEMAS: [&str; 2] = ["1.28", "1.37"];

fn validate(file: &std::path::Path, schema: &str) -> std::process::Output {
    let mut command = from_pypi("kubernetes-validate");
    run(command.args(["--strict", "--kubernetes-version", schema]).arg(file), PYPI)
}

#[test]
fn the_manifests_are_valid_by_the_oldest_and_the_newest_schema() {
    for file in files(FOLDER, ".yaml") {
        for schema in SCHEMAS {
            let output = validate(&path(&file), schema);
            let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{file}, {schema}: {said}");
            assert_eq!(said.matches(" passed for resource ").count(), yaml(&file).len(), "{file}, {schema}: {said}");
        }
    }
}

#[test]
fn a_manifest_with_a_wrong_type_or_an_unknown_key_is_refused() {
    let good = text("docker/kubernetes/self.yaml");
    for (right, wrong) in [("replicas: 1", "replicas: one"), ("replicas: 1", "replica: 1")] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("wrong.yaml");
        std::fs::write(&file, good.replacen(right, wrong, 1)).unwrap();
        assert!(!validate(&file, SCHEMAS[0]).status.success(), "{wrong}");
    }
}

/// Those of one kind.
fn of_kind<'a>(documents: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    documents.iter().filter(move |document| document["kind"] == kind)
}

/// The configuration that a pod mounts.
fn configuration(documents: &[Value], pod: &Value) -> Table {
    let volumes = pod["volumes"].as_array().unwrap();
    let name = volumes.iter().find_map(|volume| volume["configMap"]["name"].as_str()).expect("a ConfigMap");
    let map = of_kind(documents, "ConfigMap").find(|map| map["metadata"]["name"] == name).expect("that ConfigMap");
    map["data"]["pgpivot.toml"].as_str().unwrap().parse().unwrap()
}

/// Why what runs these pods must not be applied: whoever decides must be one, and must remember.
fn refusals(documents: &[Value]) -> Vec<String> {
    let mut refusals = Vec::new();
    let runs = documents.iter().filter(|document| document["spec"]["template"]["spec"]["containers"].is_array());
    for workload in runs {
        let (kind, name) = (workload["kind"].as_str().unwrap(), workload["metadata"]["name"].as_str().unwrap());
        let pod = &workload["spec"]["template"]["spec"];
        let config = configuration(documents, pod);
        let decides = |service: &toml::Value| {
            let authority = service.get("failover").and_then(|failover| failover.get("authority"));
            authority.and_then(toml::Value::as_str).unwrap_or("self") == "self"
        };
        let deciders = config["service"].as_table().unwrap().iter().filter(|(_, service)| decides(service));
        let Some((service, _)) = deciders.into_iter().next() else { continue };
        let mut refuse =
            |why: String| refusals.push(format!("{kind} {name}: service {service} decides by itself {why}"));
        match (kind, workload["spec"]["replicas"].as_u64().unwrap_or(1)) {
            ("Deployment" | "StatefulSet", 0 | 1) => {}
            ("Deployment" | "StatefulSet", several) => refuse(format!("and has {several} replicas")),
            _ => refuse("and may run on several machines".into()),
        }
        if kind == "Deployment" && workload["spec"]["strategy"]["type"] != "Recreate" {
            refuse("and the new pod would start beside the old one: strategy Recreate".into());
        }
        let scales = |scaler: &&Value| scaler["spec"]["scaleTargetRef"]["name"] == name;
        if of_kind(documents, "HorizontalPodAutoscaler").any(|scaler| scales(&scaler)) {
            refuse("and an autoscaler would make more of it".into());
        }
        let kept = keeps_state(workload, pod, &config);
        if !kept {
            refuse("and its state is not on a volume that outlives the pod".into());
        }
    }
    refusals
}

/// Is the state's path on a claim?
fn keeps_state(workload: &Value, pod: &Value, config: &Table) -> bool {
    let state = config["state"]["path"].as_str().unwrap();
    let mounts = pod["containers"][0]["volumeMounts"].as_array().unwrap();
    let holds = |mount: &&Value| std::path::Path::new(state).starts_with(mount["mountPath"].as_str().unwrap());
    let Some(mount) = mounts.iter().find(holds) else { return false };
    let claimed = |volume: &Value| volume["name"] == mount["name"] && volume["persistentVolumeClaim"].is_object();
    let of_set = |claim: &Value| claim["metadata"]["name"] == mount["name"];
    pod["volumes"].as_array().unwrap().iter().any(claimed)
        || workload["spec"]["volumeClaimTemplates"].as_array().is_some_and(|claims| claims.iter().any(of_set))
}

#[test]
fn whoever_decides_is_one_and_remembers_and_those_who_follow_may_be_several() {
    for file in files(FOLDER, ".yaml") {
        assert_eq!(refusals(&yaml(&file)), Vec::<String>::new(), "{file}");
    }
    let observers = yaml("docker/kubernetes/observe.yaml");
    assert!(of_kind(&observers, "Deployment").all(|all| all["spec"]["replicas"].as_u64() > Some(1)));
}

#[test]
fn a_decider_with_several_replicas_a_rolling_update_a_scaler_or_no_volume_is_refused() {
    let good = yaml("docker/kubernetes/self.yaml");
    let at = good.iter().position(|document| document["kind"] == "Deployment").unwrap();
    let told = |change: &dyn Fn(&mut Vec<Value>)| {
        let mut wrong = good.clone();
        change(&mut wrong);
        refusals(&wrong).join("; ")
    };
    assert_eq!(
        told(&|all| all[at]["spec"]["replicas"] = json!(2)),
        "Deployment pgpivot: service main decides by itself and has 2 replicas"
    );
    assert!(told(&|all| all[at]["spec"]["strategy"] = json!({})).contains("strategy Recreate"));
    assert!(told(&|all| all[at]["kind"] = json!("DaemonSet")).contains("may run on several machines"));
    let scaler = json!({"kind": "HorizontalPodAutoscaler", "spec": {"scaleTargetRef": {"name": "pgpivot"}}});
    assert!(told(&|all| all.push(scaler.clone())).contains("an autoscaler would make more of it"));
    let forgetful = |all: &mut Vec<Value>| {
        for volume in all[at]["spec"]["template"]["spec"]["volumes"].as_array_mut().unwrap() {
            if volume["name"] == "state" {
                *volume = json!({"name": "state", "emptyDir": {}});
            }
        }
    };
    assert!(told(&forgetful).contains("not on a volume that outlives the pod"));
    // Those who follow, made to decide; the word need not even stand there.
    let observers = yaml("docker/kubernetes/observe.yaml");
    for word in ["authority = \"self\"", ""] {
        let mut wrong = observers.clone();
        let config = &mut wrong[0]["data"]["pgpivot.toml"];
        *config = config.as_str().unwrap().replace("authority = \"observe\"", word).into();
        let told = refusals(&wrong).join("; ");
        assert!(told.contains("has 2 replicas") && told.contains("strategy Recreate"), "{told}");
    }
}

#[test]
fn the_configurations_in_the_manifests_are_good() {
    for file in files(FOLDER, ".yaml") {
        for map in of_kind(&yaml(&file), "ConfigMap") {
            let folder = tempfile::tempdir().unwrap();
            let secret = |name: &str, text: &str| {
                let at = folder.path().join(name);
                std::fs::write(&at, text).unwrap();
                std::fs::set_permissions(&at, std::fs::Permissions::from_mode(0o640)).unwrap();
            };
            secret("password", "secret\n");
            secret("token", "alice:0123456789abcdef0123456789abcdef\n");
            let config = map["data"]["pgpivot.toml"].as_str().unwrap();
            assert!(config.contains("/etc/pgpivot/secret/"), "{file}");
            let config = config.replace("/etc/pgpivot/secret", folder.path().to_str().unwrap());
            std::fs::write(folder.path().join("pgpivot.toml"), config).unwrap();
            let mut pgpivot = Command::new(env!("CARGO_BIN_EXE_pgpivot"));
            pgpivot.arg("--check").arg(folder.path().join("pgpivot.toml")).env_clear().current_dir(folder.path());
            let said = must(&mut pgpivot, "it comes with the tests");
            assert!(said.contains("crash") && !said.contains("warning"), "{file}: {said}");
        }
    }
}

#[test]
fn the_pods_say_of_pgpivot_what_is_so_and_run_with_as_little_as_can_be() {
    let docker = text("Dockerfile");
    let uid: u64 = docker.lines().find_map(|line| line.strip_prefix("USER ")).unwrap().parse().unwrap();
    let drain = text("src/daemon.rs");
    let drain = drain.split_once("const DRAIN: Duration = Duration::from_secs(").unwrap().1;
    let drain: u64 = drain.split(')').next().unwrap().parse().unwrap();
    let daemon = Served::start("steady");
    for file in files(FOLDER, ".yaml") {
        let documents = yaml(&file);
        for workload in of_kind(&documents, "Deployment") {
            let pod = &workload["spec"]["template"]["spec"];
            let config = configuration(&documents, pod);
            let container = &pod["containers"][0];
            let ports = container["ports"].as_array().unwrap();
            let port =
                |name: &str| ports.iter().find(|p| p["name"] == name).unwrap()["containerPort"].as_u64().unwrap();
            assert_eq!(config["admin"]["listen"].as_str(), Some(format!("0.0.0.0:{}", port("admin")).as_str()));
            let listener = &config["service"]["main"]["listener"][0]["address"];
            assert_eq!(listener.as_str(), Some(format!("0.0.0.0:{}", port("postgres")).as_str()));
            for (probe, asks) in [("livenessProbe", "/live"), ("readinessProbe", "/ready")] {
                assert_eq!(container[probe]["httpGet"], json!({"path": asks, "port": "admin"}), "{file}");
                get(daemon.address(), asks);
            }
            // Long enough that a loop which stands still for a moment is no reason to restart.
            let liveness = &container["livenessProbe"];
            assert!(liveness["periodSeconds"].as_u64().unwrap() * liveness["failureThreshold"].as_u64().unwrap() >= 30);
            assert!(pod["terminationGracePeriodSeconds"].as_u64().unwrap() > drain, "{file}: shorter than the drain");
            let security = &pod["securityContext"];
            assert_eq!((&security["runAsUser"], &security["runAsNonRoot"]), (&json!(uid), &json!(true)), "{file}");
            let own = json!({"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}});
            assert_eq!(container["securityContext"], own, "{file}");
            assert_eq!(
                (&pod["enableServiceLinks"], &pod["automountServiceAccountToken"]),
                (&json!(false), &json!(false))
            );
            assert!(
                container["resources"]["requests"]["memory"].is_string()
                    && container["resources"]["limits"]["memory"].is_string()
            );
            let command: Vec<&str> =
                container["command"].as_array().unwrap().iter().map(|w| w.as_str().unwrap()).collect();
            assert_eq!(command, ["pgpivot", "--config", "/etc/pgpivot/config/pgpivot.toml"], "{file}");
            let socket = format!("unix://{}", config["admin"]["socket"].as_str().unwrap());
            assert_eq!(container["env"], json!([{"name": "PGPIVOT_URL", "value": socket}]), "{file}");
            meets_its_service(&documents, workload, &file);
        }
        // Names of secrets stand here, secrets do not.
        assert_eq!(of_kind(&documents, "Secret").count(), 0, "{file}");
    }
}

/// What selects pods selects these, and the page may be called by the service's name.
fn meets_its_service(documents: &[Value], workload: &Value, file: &str) {
    let labels = &workload["spec"]["template"]["metadata"]["labels"];
    assert_eq!(&workload["spec"]["selector"]["matchLabels"], labels, "{file}");
    let services: Vec<&Value> = of_kind(documents, "Service").collect();
    assert!(services.iter().any(|service| &service["spec"]["selector"] == labels), "{file}");
    of_kind(documents, "PodDisruptionBudget").for_each(|b| assert_eq!(&b["spec"]["selector"]["matchLabels"], labels));
    let config = configuration(documents, &workload["spec"]["template"]["spec"]);
    let name = services[0]["metadata"]["name"].as_str().unwrap();
    assert!(config["admin"]["hosts"].as_array().unwrap().iter().any(|host| host.as_str() == Some(name)), "{file}");
}
