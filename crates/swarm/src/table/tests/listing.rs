//! What the table says of itself.

use super::*;

fn named(group: &str, number: u8) -> BlobKey {
    BlobKey { group: TrustGroup::new(group), digest: Digest::from_sha256([number; 32]) }
}

/// Nodes `a` and `b` with blobs 1 and 2 of group `g` and 1 of group `h`: of the first `a` holds all and `b` some, which
/// it wants; `b` has parts of the second; the third is whole.
fn table() -> Script {
    let mut it = Script::with(&["a", "b"]);
    for (node, key, gained) in [
        ("a", named("g", 1), 0..PIECES),
        ("b", named("g", 1), 0..2),
        ("b", named("g", 2), 3..4),
        ("a", named("h", 1), 0..PIECES),
    ] {
        it.on(Event::Progress(Report { key, ..report(node, false, &[gained]) }));
    }
    it.want_of(Report { key: named("g", 1), ..report("b", false, &[]) });
    it
}

fn keys(found: &Found) -> Vec<BlobKey> {
    found.standings.iter().map(|it| it.key.clone()).collect()
}

#[test]
fn a_blob_stands_as_its_members_hold_and_want_it() {
    let found = table().table.look(&Sought::default(), 10);
    let standing =
        |key, n_whole, n_part, n_wanting| Standing { key, geometry: geometry(), n_whole, n_part, n_wanting };
    let expected = [
        standing(named("g", 1), 1, 1, 1),
        standing(named("g", 2), 0, 1, 0),
        standing(named("h", 1), 1, 0, 0),
    ];
    assert_eq!((found.standings.as_slice(), found.left_at), (&expected[..], None));
    let stages: Vec<_> = expected.iter().map(Standing::stage).collect();
    assert_eq!(stages, [Stage::Fetching, Stage::Partial, Stage::Complete]);
}

#[test]
fn only_what_is_sought_is_found() {
    let it = table();
    let check = |sought: Sought, expected: &[BlobKey]| {
        let found = it.table.look(&sought, 10);
        assert_eq!((keys(&found).as_slice(), found.left_at), (expected, None), "{sought:?}");
    };
    let none = Sought::default;
    let [one, two, other] = [named("g", 1), named("g", 2), named("h", 1)];
    let group = |it: &str| Some(TrustGroup::new(it));
    check(Sought { group: group("g"), ..none() }, &[one.clone(), two.clone()]);
    check(Sought { group: group("h"), ..none() }, std::slice::from_ref(&other));
    check(Sought { group: group("i"), ..none() }, &[]);
    check(Sought { digest: Some(one.digest), ..none() }, &[one.clone(), other.clone()]);
    check(Sought { stage: Some(Stage::Partial), ..none() }, std::slice::from_ref(&two));
    check(Sought { after: Some(one.clone()), ..none() }, &[two.clone(), other.clone()]);
    check(Sought { after: Some(one.clone()), group: group("h"), ..none() }, std::slice::from_ref(&other));
    check(Sought { after: Some(other.clone()), group: group("g"), ..none() }, &[]);
    let among = [named("g", 9), two.clone(), other.clone()].into();
    check(Sought { among, ..none() }, &[two, other.clone()]);
    let among = [one, other.clone()].into();
    check(Sought { among, stage: Some(Stage::Complete), ..none() }, &[other]);
}

#[test]
fn a_look_ends_after_some_effort_and_goes_on_where_it_was() {
    let it = table();
    for (at_most, effort, among) in [(1, 1000, false), (10, 1, false), (10, 3, true), (2, 1000, true)] {
        let all: BTreeSet<_> = [named("g", 1), named("g", 2), named("h", 1)].into();
        let mut sought =
            Sought { among: if among { all.clone() } else { BTreeSet::new() }, ..Sought::default() };
        let (mut found, mut n_looks) = (Vec::new(), 0);
        loop {
            let look = it.table.look_with(&sought, at_most, effort);
            found.extend(keys(&look));
            n_looks += 1;
            sought.after = match look.left_at {
                Some(key) => Some(key),
                None => break,
            };
        }
        assert!(found.iter().eq(&all), "{found:?}");
        assert!(n_looks > 1, "{at_most} {effort}");
    }
}

#[test]
fn a_nodes_blobs_are_counted_and_a_blobs_nodes_named() {
    let it = table();
    let of = |node: &str| it.table.n_blobs_of(&id(node));
    assert_eq!([of("a"), of("b"), of("gw"), of("c")], [Some(2), Some(2), Some(0), None]);
    let members = |key| it.table.members(&key);
    assert_eq!(members(named("g", 1)), [id("a"), id("b")]);
    assert_eq!((members(named("g", 2)), members(named("g", 9))), (vec![id("b")], vec![]));
}
