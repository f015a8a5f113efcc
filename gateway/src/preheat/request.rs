//! What a preheat job is asked for: which image, for which nodes, within which limits.
//!
//! Whoever asks (the native API, Harbor's bodies, a schedule) fills an [`Asked`] with what it was given; only
//! [`Request::new`] makes a request of it, and tells all that is wrong with it at once.
//!
//! Knows nothing of: which registries there are, HTTP, how a request came in.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use shoal_model::Authorization;
use shoal_oci::RegistryName;
use utoipa::ToSchema;

use super::image::{Image, MAX_TEXT, Platform, Platforms, cut};
use crate::regions::RegionName;

/// The longest that a job runs: whoever polls it (Harbor, for 1,801 s) is to hear how it ended.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(1_700);

const LAYERS: RangeInclusive<u64> = 1..=100;
const DEFAULT_LAYERS: u32 = 8;
const NODES: RangeInclusive<u64> = 1..=1_000;
const DEFAULT_NODES: u32 = 500;
const COUNT: RangeInclusive<u64> = 1..=200;
const PERCENTAGE: RangeInclusive<u64> = 1..=100;
const MAX_IPS: usize = 100;
const MAX_PLATFORMS: usize = 20;
/// In how many other regions a job may do something.
pub(crate) const MAX_REGIONS: usize = 64;
/// What stands for every other region.
const EVERY_REGION: &str = "*";
/// The longest credential, in bytes; tokens of some services take several thousand.
const MAX_CREDENTIAL: usize = 16 << 10;

/// What was asked for, as it was given; what was not given is left at its default. As JSON, it is without the
/// credential.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
#[schema(as = PreheatAsked)]
pub struct Asked {
    /// An image, as [`Image::parse`] reads it.
    pub image: String,
    /// `os/architecture` or `os/architecture/variant`; none for all that the image has.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub platforms: Vec<String>,
    /// `single_seed_peer`, the default, `all_seed_peers` or `all_peers`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// Addresses of the nodes that are meant; goes before `count`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ips: Vec<String>,
    /// So many nodes; goes before `percentage`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// So many of a hundred nodes, at least one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percentage: Option<u64>,
    /// Nodes of this zone only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Names of other regions in which the same is to be done; `*` alone for all that are connected.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub regions: Vec<String>,
    /// Layers at once at a node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layers: Option<u64>,
    /// Nodes at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<u64>,
    /// How long the job may take; more than [`MAX_TIMEOUT`] is that.
    #[serde(skip_serializing_if = "Option::is_none", with = "seconds")]
    #[schema(value_type = Option<u64>)]
    pub timeout: Option<Duration>,
    /// What the registry is shown, instead of the gateway's own right where it has one.
    #[serde(skip)]
    pub authorization: Option<Authorization>,
}

impl Asked {
    /// Whether both have the same image at the same nodes, by whatever right and however fast. Each is as
    /// [`Request::to_asked`] words it.
    pub(super) fn is_same_work(&self, other: &Self) -> bool {
        let work =
            |it: &Self| Self { layers: None, nodes: None, timeout: None, authorization: None, ..it.clone() };
        work(self) == work(other)
    }
}

/// What a preheat job does. `Debug` shows no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Which image.
    pub image: Image,
    /// Of an image for several platforms, which.
    pub platforms: Platforms,
    /// Where it is to be.
    pub scope: Scope,
    /// Of all nodes, which; for [`Scope::AllPeers`].
    pub selector: Selector,
    /// In which regions besides this one.
    pub elsewhere: Elsewhere,
    /// How much is done at once.
    pub concurrency: Concurrency,
    /// How long it may take, at most [`MAX_TIMEOUT`].
    pub timeout: Duration,
    /// What the registry is shown.
    pub authorization: Option<Authorization>,
}

/// Where the image is to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// At one gateway: the owner of each blob.
    #[default]
    SingleSeed,
    /// At every gateway of the region.
    AllSeeds,
    /// At the nodes.
    AllPeers,
}

/// In which regions besides this one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Elsewhere {
    /// In these, if any; each once.
    In(Vec<RegionName>),
    /// In all that are connected when the job begins.
    Everywhere,
}

/// Which of the nodes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Selector {
    /// The nodes of this zone only.
    pub zone: Option<String>,
    /// How many of them.
    pub pick: Pick,
}

/// How many of the nodes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pick {
    /// All.
    All,
    /// Those at these addresses.
    Ips(Vec<IpAddr>),
    /// So many.
    Count(u32),
    /// So many of a hundred, rounded down, at least one.
    Percentage(u32),
}

/// How much is done at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Concurrency {
    /// Layers at a node.
    pub layers: u32,
    /// Nodes.
    pub nodes: u32,
}

impl Default for Concurrency {
    fn default() -> Self {
        Self { layers: DEFAULT_LAYERS, nodes: DEFAULT_NODES }
    }
}

impl Request {
    /// Makes a request of what was asked for. `registry` gives the configured registry that a host, with its
    /// port if it has one, is a name of.
    ///
    /// # Errors
    /// All that is wrong, one sentence each.
    pub fn new(asked: Asked, registry: impl Fn(&str) -> Option<RegistryName>) -> Result<Self, Vec<String>> {
        let mut faults = Faults::default();
        let image = faults.or_none(Image::parse(&asked.image, registry));
        let platforms = faults.or_none(platforms(&asked.platforms));
        let scope = faults.or_none(scope(asked.scope.as_deref()));
        let selector = faults.or_none(selector(&asked));
        let elsewhere = faults.or_none(elsewhere(&asked.regions));
        let layers = faults.or_none(within("concurrent layers", asked.layers, LAYERS));
        let nodes = faults.or_none(within("concurrent nodes", asked.nodes, NODES));
        let timeout = faults.or_none(timeout(asked.timeout));
        let authorization = faults.or_none(credential(asked.authorization));
        if let (Some(Scope::SingleSeed | Scope::AllSeeds), Some(selector)) = (scope, &selector)
            && (selector.pick != Pick::All || selector.zone.is_some())
        {
            let fault = "ips, count, percentage and zone choose among nodes: they need the scope all_peers";
            faults.0.push(fault.to_owned());
        }
        match (image, platforms, scope, selector, elsewhere, layers, nodes, timeout, authorization) {
            (
                Some(image),
                Some(platforms),
                Some(scope),
                Some(selector),
                Some(elsewhere),
                Some(layers),
                Some(nodes),
                Some(timeout),
                Some(authorization),
            ) if faults.0.is_empty() => {
                let concurrency = Concurrency {
                    layers: layers.unwrap_or(DEFAULT_LAYERS),
                    nodes: nodes.unwrap_or(DEFAULT_NODES),
                };
                Ok(Self { image, platforms, scope, selector, elsewhere, concurrency, timeout, authorization })
            }
            _ => Err(faults.0),
        }
    }

    /// What it could have been asked for with, but for the credential.
    pub fn to_asked(&self) -> Asked {
        let platforms = match &self.platforms {
            Platforms::All => Vec::new(),
            Platforms::Only(platforms) => platforms.iter().map(Platform::to_string).collect(),
        };
        let mut it = Asked {
            image: self.image.to_string(),
            platforms,
            scope: Some(self.scope.name().to_owned()),
            zone: self.selector.zone.clone(),
            regions: match &self.elsewhere {
                Elsewhere::In(regions) => regions.iter().map(RegionName::to_string).collect(),
                Elsewhere::Everywhere => vec![EVERY_REGION.to_owned()],
            },
            layers: Some(self.concurrency.layers.into()),
            nodes: Some(self.concurrency.nodes.into()),
            timeout: Some(self.timeout),
            ..Asked::default()
        };
        match &self.selector.pick {
            Pick::All => {}
            Pick::Ips(ips) => it.ips = ips.iter().map(IpAddr::to_string).collect(),
            Pick::Count(count) => it.count = Some((*count).into()),
            Pick::Percentage(percent) => it.percentage = Some((*percent).into()),
        }
        it
    }
}

/// A time in whole seconds.
mod seconds {
    use super::{Deserialize, Deserializer, Duration, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(it: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        it.map(|it| it.as_secs()).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(from)?.map(Duration::from_secs))
    }
}

/// All that is wrong with a request.
#[derive(Default)]
struct Faults(Vec<String>);

impl Faults {
    fn or_none<T>(&mut self, outcome: Result<T, String>) -> Option<T> {
        outcome.map_err(|fault| self.0.push(fault)).ok()
    }
}

impl Scope {
    /// Every scope, by its name in JSON.
    pub const NAMED: [(&str, Self); 3] = [
        ("single_seed_peer", Self::SingleSeed),
        ("all_seed_peers", Self::AllSeeds),
        ("all_peers", Self::AllPeers),
    ];

    /// Its name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SingleSeed => "single_seed_peer",
            Self::AllSeeds => "all_seed_peers",
            Self::AllPeers => "all_peers",
        }
    }
}

impl Default for Selector {
    fn default() -> Self {
        Self { zone: None, pick: Pick::All }
    }
}

/// The `Authorization` that a user's name and password make.
///
/// # Errors
/// Where the name has a colon, which would end it too early.
pub fn basic(user: &str, password: &str) -> Result<Authorization, String> {
    if user.contains(':') {
        return Err("username: has a colon, which no registry can tell from the password's".to_owned());
    }
    Ok(Authorization::new(format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))))
}

fn platforms(given: &[String]) -> Result<Platforms, String> {
    if given.len() > MAX_PLATFORMS {
        return Err(format!("platforms: are {}, at most {MAX_PLATFORMS} are allowed", given.len()));
    }
    let mut parsed = given.iter().map(|it| it.parse()).collect::<Result<Vec<Platform>, _>>()?;
    parsed.sort();
    parsed.dedup();
    Ok(if parsed.is_empty() { Platforms::All } else { Platforms::Only(parsed) })
}

fn scope(given: Option<&str>) -> Result<Scope, String> {
    let Some(given) = given else { return Ok(Scope::default()) };
    let found = Scope::NAMED.iter().find(|(name, _)| *name == given);
    found.map(|(_, scope)| *scope).ok_or_else(|| {
        let names = Scope::NAMED.map(|(name, _)| name).join(", ");
        format!("scope {:?}: is none of {names}", cut(given))
    })
}

fn selector(asked: &Asked) -> Result<Selector, String> {
    let zone = asked.zone.clone().filter(|it| !it.is_empty());
    if zone.as_ref().is_some_and(|it| it.len() > MAX_TEXT) {
        return Err(format!("zone: is longer than {MAX_TEXT} bytes"));
    }
    if asked.ips.len() > MAX_IPS {
        return Err(format!("ips: are {}, at most {MAX_IPS} are allowed", asked.ips.len()));
    }
    let ip = |it: &String| it.parse::<IpAddr>().map_err(|_| format!("ips: {:?} is no IP address", cut(it)));
    let mut ips = asked.ips.iter().map(ip).collect::<Result<Vec<_>, _>>()?;
    ips.iter_mut().for_each(|it| *it = it.to_canonical());
    ips.sort();
    ips.dedup();
    let count = within("count", asked.count, COUNT)?;
    let percentage = within("percentage", asked.percentage, PERCENTAGE)?;
    let pick = match (ips.is_empty(), count, percentage) {
        (false, _, _) => Pick::Ips(ips),
        (true, Some(count), _) => Pick::Count(count),
        (true, None, Some(percentage)) => Pick::Percentage(percentage),
        (true, None, None) => Pick::All,
    };
    Ok(Selector { zone, pick })
}

fn elsewhere(given: &[String]) -> Result<Elsewhere, String> {
    if given == [EVERY_REGION] {
        return Ok(Elsewhere::Everywhere);
    }
    let read = |it: &String| it.parse().map_err(|error| format!("regions: {:?} {error}", cut(it)));
    let mut regions = given.iter().map(read).collect::<Result<Vec<RegionName>, _>>()?;
    regions.sort();
    regions.dedup();
    if regions.len() > MAX_REGIONS {
        return Err(format!("regions: are {}, at most {MAX_REGIONS} are allowed", regions.len()));
    }
    Ok(Elsewhere::In(regions))
}

fn within(what: &str, given: Option<u64>, allowed: RangeInclusive<u64>) -> Result<Option<u32>, String> {
    let Some(given) = given else { return Ok(None) };
    let is_allowed = allowed.contains(&given);
    let narrow = u32::try_from(given).ok().filter(|_| is_allowed);
    let fault = || format!("{what}: is {given}, from {} to {} is allowed", allowed.start(), allowed.end());
    narrow.map(Some).ok_or_else(fault)
}

fn timeout(given: Option<Duration>) -> Result<Duration, String> {
    match given {
        Some(it) if it < Duration::from_secs(1) => Err("timeout: is less than a second".to_owned()),
        Some(it) => Ok(it.min(MAX_TIMEOUT)),
        None => Ok(MAX_TIMEOUT),
    }
}

fn credential(given: Option<Authorization>) -> Result<Option<Authorization>, String> {
    let Some(authorization) = given else { return Ok(None) };
    let text = authorization.expose();
    // Neither is repeated: it is a secret.
    if text.len() > MAX_CREDENTIAL {
        return Err(format!("authorization: is longer than {MAX_CREDENTIAL} bytes"));
    }
    if text.is_empty() || HeaderValue::from_str(text).is_err() {
        return Err("authorization: is no text that a header can carry".to_owned());
    }
    Ok(Some(authorization))
}

#[cfg(test)]
mod tests {
    use super::super::image::tests::configured;
    use super::*;

    fn asked() -> Asked {
        Asked { image: "harbor.example.com/prod/app:v2".to_owned(), ..Asked::default() }
    }

    fn nodes() -> Asked {
        Asked { scope: Some("all_peers".to_owned()), ..asked() }
    }

    #[track_caller]
    fn refused(asked: Asked, fault: &str) {
        let faults = Request::new(asked, configured).unwrap_err();
        assert!(faults.iter().any(|it| it.contains(fault)), "{fault:?} in {faults:?}");
    }

    #[test]
    fn what_is_not_given_has_its_default() {
        let request = Request::new(asked(), configured).unwrap();
        assert_eq!((&request.platforms, request.scope), (&Platforms::All, Scope::SingleSeed));
        assert_eq!(request.selector, Selector::default());
        assert_eq!(request.elsewhere, Elsewhere::In(Vec::new()));
        assert_eq!((request.concurrency.layers, request.concurrency.nodes), (8, 500));
        assert_eq!((request.timeout, request.authorization), (MAX_TIMEOUT, None));
        let hour = Asked { timeout: Some(Duration::from_secs(3_600)), ..asked() };
        assert_eq!(Request::new(hour, configured).unwrap().timeout, MAX_TIMEOUT);
    }

    #[test]
    fn what_is_kept_of_a_request_makes_the_same_without_its_credential() {
        let authorization = Some(Authorization::new("Bearer hunter2".to_owned()));
        for given in [
            Asked { authorization, ..asked() },
            Asked {
                count: Some(3),
                zone: Some("a".to_owned()),
                platforms: vec!["linux/arm64".to_owned()],
                ..nodes()
            },
            Asked { ips: vec!["fd00::1".to_owned()], timeout: Some(Duration::from_secs(60)), ..nodes() },
            Asked { percentage: Some(5), layers: Some(2), nodes: Some(9), ..nodes() },
            Asked { regions: vec!["us".to_owned(), "eu".to_owned(), "us".to_owned()], ..nodes() },
            Asked { regions: vec!["*".to_owned()], ..asked() },
        ] {
            let request = Request::new(given, configured).unwrap();
            let kept = serde_json::to_string(&request.to_asked()).unwrap();
            assert!(!kept.contains("hunter2"), "{kept}");
            let again = Request::new(serde_json::from_str(&kept).unwrap(), configured).unwrap();
            assert_eq!(again, Request { authorization: None, ..request });
        }
    }

    #[test]
    fn of_several_choices_of_nodes_the_first_counts() {
        let pick = |ips: &[&str], count, percentage| {
            let ips = ips.iter().map(|it| (*it).to_owned()).collect();
            Request::new(Asked { ips, count, percentage, ..nodes() }, configured).unwrap().selector.pick
        };
        let ips = ["10.0.0.1", "fd00::1"].map(|it| it.parse().unwrap()).to_vec();
        assert_eq!(pick(&["fd00::1", "10.0.0.1", "::ffff:10.0.0.1"], Some(3), Some(50)), Pick::Ips(ips));
        assert_eq!(pick(&[], Some(3), Some(50)), Pick::Count(3));
        assert_eq!(pick(&[], None, Some(50)), Pick::Percentage(50));
        assert_eq!(pick(&[], None, None), Pick::All);
    }

    #[test]
    fn limits_are_kept_and_all_faults_told() {
        for (given, fault) in [
            (Asked { count: Some(0), ..nodes() }, "count: is 0, from 1 to 200"),
            (Asked { count: Some(201), ..nodes() }, "count: is 201"),
            (Asked { percentage: Some(101), ..nodes() }, "percentage: is 101, from 1 to 100"),
            (Asked { ips: vec!["10.0.0".to_owned()], ..nodes() }, "\"10.0.0\" is no IP address"),
            (Asked { ips: vec!["::1".to_owned(); 101], ..nodes() }, "ips: are 101, at most 100"),
            (Asked { layers: Some(101), ..asked() }, "concurrent layers: is 101, from 1 to 100"),
            (Asked { nodes: Some(u64::MAX), ..asked() }, "concurrent nodes: is"),
            (Asked { timeout: Some(Duration::ZERO), ..asked() }, "less than a second"),
            (Asked { scope: Some("everywhere".to_owned()), ..asked() }, "scope \"everywhere\": is none of"),
            (Asked { platforms: vec!["linux".to_owned()], ..asked() }, "platform \"linux\""),
            (Asked { platforms: vec!["linux/amd64".to_owned(); 21], ..asked() }, "platforms: are 21"),
            (
                Asked { regions: vec!["a b".to_owned()], ..asked() },
                "regions: \"a b\" is not of 1 to 63 letters",
            ),
            (Asked { regions: vec!["eu".to_owned(), "*".to_owned()], ..asked() }, "regions: \"*\" is not"),
            (
                Asked { regions: (0..=MAX_REGIONS).map(|it| it.to_string()).collect(), ..asked() },
                "regions: are 65, at most 64",
            ),
            (Asked { count: Some(3), ..asked() }, "need the scope all_peers"),
            (Asked { zone: Some("a".to_owned()), ..asked() }, "need the scope all_peers"),
        ] {
            refused(given, fault);
        }
        let all = Asked { image: "x".to_owned(), layers: Some(0), nodes: Some(0), ..Asked::default() };
        assert_eq!(Request::new(all, configured).unwrap_err().len(), 3);
    }

    #[test]
    fn a_credential_is_carried_and_never_shown() {
        let with = |text: &str| Asked { authorization: Some(Authorization::new(text.to_owned())), ..asked() };
        let request = Request::new(with("Bearer hunter2"), configured).unwrap();
        assert_eq!(request.authorization.as_ref().unwrap().expose(), "Bearer hunter2");
        assert!(!format!("{request:?}").contains("hunter2"));
        for bad in ["", "Bearer hunter2\r\nX: y", &"x".repeat(MAX_CREDENTIAL + 1)] {
            let faults = Request::new(with(bad), configured).unwrap_err();
            assert!(faults[0].starts_with("authorization: "), "{faults:?}");
            assert!(!faults[0].contains("hunter2"), "{faults:?}");
        }
        assert_eq!(basic("ann", "pw").unwrap().expose(), "Basic YW5uOnB3");
        assert!(basic("a:b", "pw").is_err());
    }
}
