//! The console in a real Chromium, while real nodes pull.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use serde_json::{Value, json};
use shoal_tests::browser::{Browser, Heard, LOOKS};
use shoal_tests::fleet::{Fleet, FleetSpec};
use shoal_tests::lab::{Lab, LabSpec};
use shoal_tests::link::Mbit;
use shoal_tests::shoal::Service;

const CONSOLE: &str = "http://127.0.0.1:65023/console/";
const N_NODES: u16 = 4;
/// A layer that is not sent before somebody has looked at it, at the rate at which gateways send meanwhile.
const LAYER: usize = 20 << 20;
const SLOW: Mbit = Mbit(4);

/// How far the swarm's page is: what its members hold, and what is painted of that. `null` while it has no members.
const SWARM: &str = r"
    const shares = [...document.querySelectorAll('ul.map .figure')].map((it) => Number.parseFloat(it.textContent));
    const alpha = (it) => {
        const copy = new OffscreenCanvas(it.width, it.height).getContext('2d', { willReadFrequently: true });
        copy.drawImage(it, 0, 0);
        return copy.getImageData(0, 0, it.width, it.height).data.filter((_, at) => at % 4 === 3);
    };
    const painted = [...document.querySelectorAll('ul.map canvas')].flatMap((it) => [...alpha(it)]);
    const sum = (all) => all.reduce((sum, it) => sum + it, 0);
    const edges = document.querySelector('svg.graph .edges')?.getAttribute('d') ?? '';
    if (shares.length === 0) return null;
    return { members: shares.length, held: sum(shares), painted: sum(painted), edges: edges.split('M').length - 1 };
";

/// Where pictures stay, for people to look at.
fn pictures() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("console")
}

/// Signs in on the page that is open.
async fn sign_in(browser: &Browser, token: &str) -> Result<()> {
    browser.fill_in("#token", token).await?;
    browser.click("form button").await
}

fn token(gateway: &Service) -> Result<String> {
    Ok(std::fs::read_to_string(gateway.host.dir().join("gateway/management-token"))?.trim().to_owned())
}

/// A page of the console, from its address behind the `#/`.
async fn open(browser: &Browser, page: &str) -> Result<()> {
    browser.open(&format!("{CONSOLE}#/{page}")).await
}

/// Fails where the page has asked anybody but its gateway, or complained.
async fn nothing_is_wrong(browser: &Browser) -> Result<()> {
    let Heard { requests, complaints } = browser.heard().await?;
    let origin = url::Url::parse(CONSOLE)?.origin();
    let strangers: Vec<_> = requests.iter().filter(|it| it.origin() != origin).collect();
    ensure!(!requests.is_empty(), "no request was heard of");
    ensure!(strangers.is_empty(), "the console asks {strangers:?}");
    ensure!(complaints.is_empty(), "the browser complains: {complaints:?}");
    Ok(())
}

/// Takes pictures of the page that is shown, in all looks, and fails where it is wider than its window.
async fn take_pictures(browser: &Browser, page: &str) -> Result<()> {
    for look in LOOKS {
        browser.look(look).await?;
        let beyond = browser.run("return document.documentElement.scrollWidth - innerWidth").await?;
        ensure!(beyond.as_i64() <= Some(0), "{page}, {}: {beyond} pixels too wide", look.name);
        browser.picture(page, look, &pictures()).await?;
    }
    browser.look(LOOKS[0]).await
}

async fn started(name: &str) -> Result<(Lab, Fleet, Browser)> {
    let mut lab = Lab::start(name, LabSpec::nodes(N_NODES)).await?;
    let management = json!({ "management": { "requestsPerSecond": 1000 } });
    let spec = FleetSpec::private().in_racks(2).with_schedulers(2).with_gateways(2).with_redis();
    let fleet = Fleet::start(&mut lab, spec.with_gateway(management)).await?;
    fleet.joined().await?;
    let browser = Browser::start(&fleet.gateway.host).await?;
    browser.look(LOOKS[0]).await?;
    Ok((lab, fleet, browser))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_sees_a_download_fill_and_preheats_from_the_page() -> Result<()> {
    let (_lab, fleet, browser) = started("browser").await?;

    // A wrong token opens nothing; a browser tells of every refusal.
    browser.open(CONSOLE).await?;
    take_pictures(&browser, "sign-in").await?;
    nothing_is_wrong(&browser).await?;
    sign_in(&browser, "shoal_of-somebody-else").await?;
    browser.wait_for("The gateway does not know this token").await?;
    take_pictures(&browser, "sign-in-refused").await?;
    let complaints = browser.heard().await?.complaints;
    ensure!(complaints.len() == 1 && complaints[0].contains("401"), "{complaints:?}");
    sign_in(&browser, &token(&fleet.gateway)?).await?;

    // Where all nodes stand.
    browser.wait_for("All is well").await?;
    let text = browser.text().await?;
    for part in ["2 schedulers and 2 gateways answer", "Zone zone", "2 racks", "4 sidecars"] {
        ensure!(text.contains(part), "no {part:?}: {text}");
    }
    let racks = "return [...document.querySelectorAll('ul.racks li')].map((it) => it.title)";
    let racks = browser.run(racks).await?;
    for rack in ["Rack rack-0: 2 sidecars", "Rack rack-1: 2 sidecars"] {
        ensure!(racks.as_array().is_some_and(|it| it.contains(&json!(rack))), "no {rack:?}: {racks}");
    }
    nothing_is_wrong(&browser).await?;

    watch_a_download(&fleet, &browser).await?;
    preheat(&fleet, &browser).await?;
    all_pages(&browser).await
}

/// Whatever gateway owns a blob, it is not sent soon.
async fn slow_down(fleet: &Fleet) -> Result<()> {
    try_join_all(fleet.gateways().iter().map(|it| it.host.shape(SLOW, SLOW))).await.map(drop)
}

async fn speed_up(fleet: &Fleet) -> Result<()> {
    try_join_all(fleet.gateways().iter().map(|it| it.host.unshape())).await.map(drop)
}

/// A pull on all nodes appears, fills and ends.
async fn watch_a_download(fleet: &Fleet, browser: &Browser) -> Result<()> {
    open(browser, "downloads").await?;
    browser.wait_for("No node wants a blob at this moment").await?;
    slow_down(fleet).await?;
    let (image, runtimes) = (fleet.publish(&[LAYER]).await?, fleet.containerds().await?);
    let pulls = try_join_all(runtimes.iter().map(|it| it.pull(&fleet.registry, &image)));
    let watching = async {
        browser.wait_for(&image.repository).await?;
        take_pictures(browser, "downloads").await?;
        browser.click("tbody th a").await?;
        let digest = image.layers[0].digest.to_string();
        browser.wait_for(&format!("Swarm of {}", &digest["sha256:".len()..][..12])).await?;

        // Its members hold ever more, it is painted, and they are neighbours of each other.
        let first = browser.wait_until("a swarm", SWARM).await?;
        let more = |than: f64, members: u16| {
            format!("const now = (() => {{ {SWARM} }})();
                return now?.held > {than} && now.members >= {members} && now.edges > 0 && now.painted > 0 ? now : null;")
        };
        let held = |it: &Value| it["held"].as_f64().context("a swarm that holds nothing");
        let some = browser.wait_until("pieces on all nodes", &more(held(&first)?, N_NODES)).await?;
        take_pictures(browser, "swarm").await?;
        let rest = browser.wait_until("more pieces", &more(held(&some)?, N_NODES)).await?;
        ensure!(rest["painted"].as_f64() > some["painted"].as_f64(), "{rest} after {some}");
        speed_up(fleet).await?;
        browser.wait_for("Nobody wants this blob any more").await
    };
    let (pulled, watched) = tokio::join!(pulls, watching);
    pulled?;
    watched?;
    let done = browser.run(SWARM).await?;
    ensure!(done["held"].as_f64() >= Some(100.0 * f64::from(N_NODES)), "{done}");
    take_pictures(browser, "swarm-done").await?;
    open(browser, "downloads").await?;
    browser.wait_for("No node wants a blob at this moment").await?;
    nothing_is_wrong(browser).await
}

/// A job that is started on the page has its image on all nodes, and one that is cancelled there ends.
async fn preheat(fleet: &Fleet, browser: &Browser) -> Result<()> {
    let done = ask_for_preheat(fleet, browser, LAYER + 1).await?;
    browser.wait_for("SUCCESS").await?;
    browser.wait_for("4 of 4 nodes done").await?;
    take_pictures(browser, "preheat-done").await?;

    slow_down(fleet).await?;
    let cancelled = ask_for_preheat(fleet, browser, LAYER + 2).await?;
    take_pictures(browser, "preheat-job").await?;
    browser.click(".head button.danger").await?;
    browser.click("dialog button.danger").await?;
    browser.wait_for("The job is now").await?;
    browser.click("dialog button:not(.danger)").await?;
    browser.wait_for("Cancelled by").await?;
    take_pictures(browser, "preheat-cancelled").await?;
    speed_up(fleet).await?;

    for (id, state) in [(done, "SUCCESS"), (cancelled, "FAILURE")] {
        let job = fleet.gateway.job(id).await?;
        ensure!(job["state"] == state, "{job}");
    }
    nothing_is_wrong(browser).await
}

/// Starts a job on the page, for an image with such a layer; returns its number.
async fn ask_for_preheat(fleet: &Fleet, browser: &Browser, layer: usize) -> Result<u64> {
    let image = fleet.publish(&[layer]).await?;
    open(browser, "preheat").await?;
    browser.click(".head a.primary").await?;
    browser.fill_in("#image", &fleet.registry.reference(&image)).await?;
    browser.fill_in("#scope", "at the nodes").await?;
    take_pictures(browser, "preheat-form").await?;
    browser.click("form button.primary").await?;
    let id =
        browser.wait_until("the job", r"return location.hash.match(/preheat\/(\d+)$/)?.[1] ?? null").await?;
    browser.wait_for(image.repository.as_str()).await?;
    id.as_str().and_then(|it| it.parse().ok()).context("a job without a number")
}

/// Each page shows something of this fleet.
async fn all_pages(browser: &Browser) -> Result<()> {
    let pages = [
        ("fleet", "rack-1", "fleet"),
        ("nodes?zone=zone", "sidecar", "nodes"),
        ("tasks", "COMPLETE", "tasks"),
        ("preheat", "2 jobs in all", "preheat"),
        ("savings", "Read from registries", "savings"),
        ("settings", "management", "settings"),
        ("certificates", "Issuer", "certificates"),
        ("audit", "preheat", "audit"),
    ];
    for (page, text, name) in pages {
        open(browser, page).await?;
        browser.wait_for(text).await?;
        let waits = browser.text().await?.contains("Loading …");
        ensure!(!waits, "{page} shows {text:?} before it is loaded");
        take_pictures(browser, name).await?;
        if page == "tasks" {
            browser.click("tbody th a").await?;
            browser.wait_for("What this gateway did").await?;
            take_pictures(browser, "task").await?;
        }
    }
    nothing_is_wrong(browser).await
}
