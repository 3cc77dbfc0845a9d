//! The stats page in a real browser.

use std::time::{Duration, Instant};

use serde_json::json;

use super::browser::Browser;
use super::served::{Served, sample};

const SAMPLES: [&str; 9] = [
    "steady",
    "suspect",
    "promoting",
    "blocked",
    "quarantined",
    "exhausted",
    "clusters",
    "clusters_first_scan",
    "clusters_failing_over",
];

#[test]
fn the_page_follows_a_change_within_a_second_without_reloading() {
    let served = Served::start("steady");
    let mut browser = Browser::start();
    browser.open(&format!("http://{}/stats", served.address()));
    browser.wait_for("document.getElementById('link').textContent.startsWith('live')");
    browser.evaluate("window.untouched = true");
    for name in ["suspect", "promoting", "quarantined", "steady"] {
        let mut status = sample(name);
        let phase = status.services[0].phase.clone();
        status.daemon = format!("proxy-{name}");
        let begun = Instant::now();
        served.publish(status);
        browser.wait_for(&format!("document.getElementById('board').innerText.includes('proxy-{name}')"));
        assert!(begun.elapsed() < Duration::from_secs(1), "{name} after {:?}", begun.elapsed());
        assert!(browser.text().contains(&format!("Phase {phase}")), "{name}");
    }
    let mut event = json!({ "service": "main", "at": 1_785_841_736_000_000_u64, "episode": null, "epoch": 7,
        "kind": "notice", "sentence": "a sentence of its own", "took": null, "operator": null, "active": null });
    served.happen(serde_json::from_value(event.take()).unwrap());
    browser.wait_for("document.body.innerText.includes('a sentence of its own')");
    assert_eq!(browser.evaluate("window.untouched"), true, "the page was reloaded");
    assert_eq!(browser.complaints, Vec::<String>::new());
}

#[test]
fn the_tab_tells_who_is_active_and_a_screen_reader_hears_of_changes() {
    let served = Served::start("steady");
    let mut browser = Browser::start();
    browser.open(&format!("http://{}/stats", served.address()));
    browser.wait_for("document.title === '● us-east · steady · pgpivot'");
    browser.wait_for("document.querySelector('link[rel=icon]').href.includes('15803d')");
    served.publish(sample("promoting"));
    browser.wait_for("document.title === '▲ us-east → us-west · promoting · pgpivot'");
    browser.wait_for("document.getElementById('say').textContent.includes('87 clients wait')");
    served.publish(sample("blocked"));
    browser.wait_for("document.title === '■ us-east · blocked · pgpivot'");
    browser.wait_for("document.querySelector('link[rel=icon]').href.includes('b91c1c')");
}

#[test]
fn every_state_fits_a_phone_a_tablet_and_a_desk_in_light_and_dark() {
    let served = Served::start("steady");
    let mut browser = Browser::start();
    for name in SAMPLES {
        served.publish(sample(name));
        for (width, scheme) in
            [(360, "light"), (360, "dark"), (800, "light"), (1000, "light"), (1440, "light"), (1440, "dark")]
        {
            browser.look(width, scheme);
            browser.open(&format!("http://{}/stats", served.address()));
            let wide = browser.evaluate("document.documentElement.scrollWidth");
            assert_eq!(wide, width, "{name} at {width}, {scheme} overflows");
            let dim = browser.evaluate(CONTRAST);
            assert_eq!(dim, json!([]), "{name} at {width}, {scheme}: hard to read");
        }
    }
}

/// Texts whose contrast with what is behind them is under 4.5 to 1 (WCAG 2, level AA).
const CONTRAST: &str = r#"(() => {
    const parts = (colour) => colour.match(/[\d.]+/g).map(Number);
    const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
        .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const behind = (e) => {
        for (; e; e = e.parentElement) {
            const c = parts(getComputedStyle(e).backgroundColor);
            if (c.length === 3 || c[3] === 1) return c;
        }
        return [255, 255, 255];
    };
    const poor = new Set();
    for (const e of document.querySelectorAll("body *")) {
        if (![...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim())) continue;
        if (!e.checkVisibility() || e.tagName === "SCRIPT") continue;
        const [a, b] = [light(parts(getComputedStyle(e).color)), light(behind(e))];
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (ratio < 4.5) poor.add(`${e.tagName}.${e.className} ${e.textContent.trim().slice(0, 30)} ${ratio.toFixed(2)}`);
    }
    return [...poor];
})()"#;

#[test]
fn the_page_reads_well_without_javascript() {
    let served = Served::start("steady");
    let mut browser = Browser::start();
    browser.scripts(false);
    let wanted = [
        ("steady", ["Takes all traffic; nobody waits.", "Phase steady", "us-east answers as primary on timeline 3"]),
        ("suspect", ["Phase suspect", "1 of 3 probes failed", "us-west still hears from it"]),
        ("promoting", ["Phase promoting", "87 clients wait", "promotion sent"]),
        ("blocked", ["Phase blocked", "Blocked: witness alive", "Check the network"]),
        ("quarantined", ["us-east is quarantined", "pg_rewind or pg_basebackup", "Takes all traffic; nobody waits."]),
        ("exhausted", ["budget exhausted", "0 of 3 in 24 hours", "12 clients wait"]),
        ("clusters", ["Read through the Cloud API just now.", "us-east → us-west", "has all up to"]),
        ("clusters_first_scan", ["Last reading: GET", "first scan: not usable yet", "activated as of"]),
        ("clusters_failing_over", ["failing over", "to the latest replicated time", "1 client waits"]),
    ];
    for (name, texts) in wanted {
        served.publish(sample(name));
        browser.open(&format!("http://{}/stats", served.address()));
        let text = browser.text();
        for wanted in texts {
            assert!(text.contains(wanted), "{name}: no {wanted:?} in {text}");
        }
    }
    let refresh = browser.evaluate("document.querySelector('meta[http-equiv=refresh]')?.content");
    assert_eq!(refresh, "3", "it renews itself");
}

#[test]
fn the_page_says_so_when_pgpivot_is_gone_and_recovers_when_it_is_back() {
    let served = Served::start("steady");
    let address = served.address();
    let mut browser = Browser::start();
    browser.open(&format!("http://{address}/stats"));
    browser.wait_for("document.getElementById('link').textContent.startsWith('live')");
    drop(served);
    browser.wait_for("!document.getElementById('lost').hidden");
    assert!(browser.text().contains("What you see is old."));
    let _again = Served::at("suspect", address);
    browser.wait_for("document.getElementById('lost').hidden && document.body.innerText.includes('Phase suspect')");
}
