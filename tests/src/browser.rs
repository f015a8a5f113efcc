//! Debian's Chromium, without a screen, as an operator looks at a page with.
//!
//! It is driven over WebDriver. What that does not have, Chromium's driver adds: the log of the browser's console and of
//! its network, and commands of the DevTools protocol.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use fantoccini::elements::Element;
use fantoccini::error::CmdError;
use fantoccini::wd::{Capabilities, WebDriverCompatibleCommand};
use fantoccini::{Client, ClientBuilder, Locator};
use http::Method;
use serde_json::{Value, json};
use url::{ParseError, Url};

use crate::command::Launch;
use crate::host::Host;
use crate::http::Connector;
use crate::process::Process;
use crate::wait;

const PORT: u16 = 9515;
const DEADLINE: Duration = Duration::from_secs(60);

/// A browser with one open page.
#[derive(Debug)]
pub struct Browser {
    client: Client,
    _driver: Process,
}

/// How a page is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// What it is called.
    pub name: &'static str,
    /// Pixels of the window.
    width: u32,
    height: u32,
    is_phone: bool,
    scheme: &'static str,
}

/// On a desk, light and dark, and on a phone.
pub const LOOKS: [Look; 3] = [
    Look { name: "desktop", width: 1280, height: 800, is_phone: false, scheme: "light" },
    Look { name: "dark", width: 1280, height: 800, is_phone: false, scheme: "dark" },
    Look { name: "phone", width: 390, height: 844, is_phone: true, scheme: "light" },
];

/// What a browser did and said since it was asked last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Where requests over a network went to, in their order. Pages of the browser's own make others.
    pub requests: Vec<Url>,
    /// What its console shows as an error or a warning.
    pub complaints: Vec<String>,
}

impl Browser {
    /// Starts it on a machine.
    pub async fn start(host: &Host) -> Result<Self> {
        let launch = Launch::new("chromedriver").arg(format!("--port={PORT}"));
        let mut driver = host.start("chromedriver", launch)?;
        driver.wait_for_port(PORT).await?;
        // As root it has no sandbox, and what it keeps goes with the machine.
        let profile = host.dir().join("chromium");
        let arguments =
            ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"].map(str::to_owned);
        let arguments: Vec<_> =
            arguments.into_iter().chain([format!("--user-data-dir={}", profile.display())]).collect();
        let capabilities = json!({
            "browserName": "chrome",
            "goog:chromeOptions": { "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
        });
        let capabilities: Capabilities = serde_json::from_value(capabilities)?;
        let client = ClientBuilder::new(Connector(host.clone()))
            .capabilities(capabilities)
            .connect(&format!("http://127.0.0.1:{PORT}"))
            .await
            .context("chromium cannot be started")?;
        Ok(Self { client, _driver: driver })
    }

    /// Opens a page.
    pub async fn open(&self, url: &str) -> Result<()> {
        self.client.goto(url).await.with_context(|| format!("{url} is not opened"))
    }

    /// What a script returns.
    pub async fn run(&self, script: &str) -> Result<Value> {
        self.client.execute(script, Vec::new()).await.with_context(|| format!("{script}: not run"))
    }

    /// The text that is seen.
    pub async fn text(&self) -> Result<String> {
        let text = self.run("return document.body.innerText").await?;
        Ok(text.as_str().unwrap_or_default().to_owned())
    }

    /// Waits until a text is seen.
    pub async fn wait_for(&self, text: &str) -> Result<()> {
        let script = format!("return document.body.innerText.includes({}) || null", json!(text));
        self.wait_until(text, &script).await.map(drop)
    }

    /// Waits until a script returns something but `null`, and returns that.
    pub async fn wait_until(&self, what: &str, script: &str) -> Result<Value> {
        let seen =
            wait::until(what, DEADLINE, async || self.run(script).await.ok().filter(|it| !it.is_null()));
        match seen.await {
            Ok(value) => Ok(value),
            Err(error) => Err(error.context(self.text().await.unwrap_or_default())),
        }
    }

    async fn element(&self, css: &str) -> Result<Element> {
        let found = self.client.wait().at_most(DEADLINE).for_element(Locator::Css(css)).await;
        found.with_context(|| format!("there is no {css}"))
    }

    /// Clicks on the first element that a selector finds, once there is one.
    pub async fn click(&self, css: &str) -> Result<()> {
        self.element(css).await?.click().await.with_context(|| format!("{css} cannot be clicked on"))
    }

    /// Fills in a field, or chooses by the name of what is chosen.
    pub async fn fill_in(&self, css: &str, text: &str) -> Result<()> {
        let field = self.element(css).await?;
        if field.tag_name().await? == "input" {
            field.clear().await?;
        }
        field.send_keys(text).await.with_context(|| format!("{css} cannot be filled in"))
    }

    // === Pictures ===

    /// Looks at the page like that from now on.
    pub async fn look(&self, look: Look) -> Result<()> {
        self.resize(look, look.height).await?;
        let scheme = json!({ "features": [{ "name": "prefers-color-scheme", "value": look.scheme }] });
        self.devtools("Emulation.setEmulatedMedia", scheme).await?;
        Ok(())
    }

    async fn resize(&self, Look { width, is_phone, .. }: Look, height: u32) -> Result<()> {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": is_phone });
        self.devtools("Emulation.setDeviceMetricsOverride", size).await?;
        Ok(())
    }

    /// Takes a picture of the whole page, `<page>-<look>.png` in `dir`.
    pub async fn picture(&self, page: &str, look: Look, dir: &Path) -> Result<()> {
        let all = self.run("return document.documentElement.scrollHeight").await?;
        let height = all.as_u64().and_then(|it| u32::try_from(it).ok()).unwrap_or(look.height);
        self.resize(look, height.max(look.height)).await?;
        let picture = self.client.screenshot().await?;
        self.resize(look, look.height).await?;
        let file = dir.join(format!("{page}-{}.png", look.name));
        std::fs::create_dir_all(dir)?;
        std::fs::write(&file, picture).with_context(|| format!("{}: not written", file.display()))
    }

    // === What Chromium's driver adds ===

    /// What it did and said since it was asked last.
    pub async fn heard(&self) -> Result<Heard> {
        let mut heard = Heard::default();
        for entry in self.log("performance").await? {
            let event: Value = serde_json::from_str(entry["message"].as_str().unwrap_or_default())?;
            let event = &event["message"];
            if event["method"] == "Network.requestWillBeSent" {
                let url = event["params"]["request"]["url"].as_str().context("a request without a URL")?;
                heard
                    .requests
                    .extend(Some(Url::parse(url)?).filter(|it| it.scheme() != "chrome" && it.has_host()));
            }
        }
        for entry in self.log("browser").await? {
            if ["SEVERE", "WARNING"].iter().any(|it| entry["level"] == *it) {
                heard.complaints.push(entry["message"].as_str().unwrap_or_default().to_owned());
            }
        }
        Ok(heard)
    }

    async fn log(&self, kind: &str) -> Result<Vec<Value>> {
        let log = self.client.issue_cmd(Added("se/log", json!({ "type": kind }))).await?;
        Ok(log.as_array().with_context(|| format!("no {kind} log"))?.clone())
    }

    async fn devtools(&self, command: &str, parameters: Value) -> Result<Value, CmdError> {
        let body = json!({ "cmd": command, "params": parameters });
        self.client.issue_cmd(Added("goog/cdp/execute", body)).await
    }
}

/// A command that WebDriver does not have: its path below the session, and its body.
#[derive(Debug)]
struct Added(&'static str, Value);

impl WebDriverCompatibleCommand for Added {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, ParseError> {
        base.join(&format!("session/{}/{}", session.unwrap_or_default(), self.0))
    }

    fn method_and_body(&self, _: &Url) -> (Method, Option<String>) {
        (Method::POST, Some(self.1.to_string()))
    }
}
