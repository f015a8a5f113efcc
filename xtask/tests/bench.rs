//! The benches as a machine reads them. What their figures are worth is not for a test to say, only that all
//! of them are there.

use std::process::Command;

use serde_json::Value;

fn figures(args: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_xtask")).arg("bench").args(args).output();
    let output = output.expect("the bench starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("one JSON object and nothing else")
}

fn is_positive(it: &Value) -> bool {
    it.as_f64().is_some_and(|it| it > 0.0)
}

#[test]
fn the_gateway_is_measured_under_many_nodes() {
    let figures = figures(&["gateway", "--quick", "--json"]);
    for name in ["connections", "opensPerSecond", "cpuSecondsPerThousandOpens", "residentMiB"] {
        assert!(is_positive(&figures[name]), "{name}: {}", figures[name]);
    }
}

#[test]
fn small_blobs_are_measured_beside_the_registry() {
    let figures = figures(&["small", "--quick", "--json"]);
    for whose in ["own", "other"] {
        for at_once in ["8", "64"] {
            let ratio = &figures["overDirect"][whose][at_once];
            assert!(is_positive(ratio), "{whose}, {at_once} at once: {ratio}");
        }
    }
}

#[test]
fn the_data_path_is_measured_from_end_to_end() {
    let figures = figures(&["datapath", "--quick", "--json"]);
    for name in ["cpuOverNginx", "oneStreamOverNginx", "fourStreamsOverNginx"] {
        assert!(is_positive(&figures[name]), "{name}: {}", figures[name]);
    }
    for name in ["pieceCpuSecondsPerGiB", "coldCpuSecondsPerGiB"] {
        let both = &figures[name];
        assert!(is_positive(&both["plain"]) && is_positive(&both["mtls"]), "{name}: {both}");
    }
    for name in ["hot", "coldOneNode", "coldFourNodes", "coldNeighbour"] {
        let spread = &figures["firstByteMillis"][name];
        assert!(is_positive(&spread["median"]), "{name}: {spread}");
    }

    let rows = figures["pieces"]["rows"].as_array().expect("rows");
    let seen: Vec<_> = rows.iter().map(|it| (it["work"].as_str(), it["security"].as_str())).collect();
    let works = [
        "pieces, 1 at once",
        "pieces, 4 at once",
        "pieces, 8 at once",
        "pieces into a store, 4 at once",
        "bare stream",
        "connect",
    ];
    let expected = works.map(|it| [(Some(it), Some("plain")), (Some(it), Some("tls"))]);
    assert_eq!(seen, expected.concat());
    for row in rows {
        assert!(is_positive(&row["rate"]["min"]), "{row}");
        assert_eq!(row["overPlain"].is_object(), row["security"] == "tls", "{row}");
    }
}

#[test]
fn a_swarm_is_measured_from_end_to_end() {
    let figures = figures(&["swarm", "--quick", "--json"]);
    for name in [
        "nodes",
        "lastNodeRatio",
        "registryEgressRatio",
        "gatewayUploadRatio",
        "overDirect",
        "singleNodeOverDirect",
        "replayedOverMeasured",
    ] {
        assert!(figures[name].as_f64().is_some_and(|it| it > 0.0), "{name}: {}", figures[name]);
    }
    let run = &figures["runs"][0];
    assert_eq!(run["joins"].as_array().map(Vec::len), run["pulls"].as_array().map(Vec::len), "{run}");
}

#[test]
fn a_fleet_is_counted_at_its_scheduler() {
    let figures = figures(&["scheduler", "--quick", "--json"]);
    for name in ["registrationsPerSecond", "reportsPerSecond", "residentMiB", "secondsAfterRestart"] {
        assert!(figures[name].as_f64().is_some_and(|it| it > 0.0), "{name}: {}", figures[name]);
    }
}
