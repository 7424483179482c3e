//! Soft and external links of HDF5 files, old symbol tables and new link messages (`tests/data/hdf5/make.py` writes them).

use std::path::{Path, PathBuf};

use cellmill_matrix::{Array, Values};
use cellmill_store::hdf5::Hdf5Tree;
use cellmill_store::tree::{Node, Tree};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/hdf5").join(name)
}

fn open(name: &str) -> Hdf5Tree {
    Hdf5Tree::open(&file(name)).unwrap()
}

#[test]
fn links_lead_where_they_lead_in_hdf5() {
    for name in ["links.h5", "links_new.h5"] {
        let tree = open(name);
        let expected = Array { shape: vec![4], values: Values::I32(vec![3, 1, 4, 1]) };
        for path in ["g/data", "absolute/data", "g/relative", "g/below/sibling", "chain/data", "g/below/self/data", "one", "many/s7"] {
            assert_eq!(tree.read(path).unwrap(), expected, "{name}: {path}");
            let mut bytes = Vec::new();
            tree.chunks(path).unwrap().decode(0, &mut Vec::new(), &mut bytes).unwrap();
            assert_eq!(bytes, [3, 0, 0, 0, 1, 0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0], "{name}: {path}");
        }
        assert!(matches!(tree.node("chain").unwrap(), Some(Node::Group(attrs)) if attrs["kind"] == "group"));
        assert_eq!(tree.children("chain").unwrap(), ["below", "data", "relative"]);
        // Two of the many links are hard, and one dangles.
        let many = tree.children("many").unwrap();
        assert_eq!(many.len(), 400, "{name}");
        assert!(many.iter().all(|child| tree.node(&format!("many/{child}")).unwrap().is_some()));
        // What is absent below a link is absent, and no fault of the link.
        assert!(tree.node("chain/nothing").unwrap().is_none());
        assert!(tree.read("chain/nothing").unwrap_err().to_string().contains("there is no 'nothing'"));
    }
}

#[test]
fn links_that_lead_nowhere_say_so_and_harm_nothing() {
    for (name, external) in [("links.h5", false), ("links_new.h5", true)] {
        let tree = open(name);
        let mut lost = vec![
            ("circle", "a link to /circle2, but links lead on from there, in a circle"),
            ("circle2", "a link to circle, but links lead on from there, in a circle"),
            ("dangling", "a link to /g/nothing, but nothing is there"),
        ];
        if external {
            lost.push(("far", "an external link to other.h5ad, but one file is read: open other.h5ad"));
            lost.push(("farther", "an external link to other.h5ad, but one file is read: open other.h5ad"));
        }
        let found: Vec<(String, String)> =
            tree.lost("").into_iter().map(|link| (link.name.clone(), format!("{}, but {}", link.found, link.expected))).collect();
        let expected: Vec<(String, String)> = lost.iter().map(|(name, why)| (name.to_string(), why.to_string())).collect();
        assert_eq!(found, expected, "{name}");
        for (link, why) in &lost {
            assert!(tree.node(link).unwrap().is_none());
            let error = tree.read(link).unwrap_err().to_string();
            assert!(error.contains(link) && error.ends_with(why), "{error}");
        }
        assert_eq!(tree.children("").unwrap(), ["absolute", "chain", "g", "many", "one"]);
        // A link back to a group that it lies in is no child, wherever one comes from.
        assert_eq!(tree.children("g/below").unwrap(), ["sibling"]);
        let loops: Vec<String> = tree.lost("absolute/below").into_iter().map(|link| link.name).collect();
        assert_eq!(loops, ["self"], "{name}");
        assert_eq!(tree.lost("many").len(), 1);
    }
}

/// Overwritten bytes of the structures that hold links give other links, or none; never a panic, and never a walk without end.
#[test]
fn damaged_links_are_survived() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bad.h5");
    let mut seed = 1u64;
    let mut random = move |n: usize| {
        // Marsaglia's xorshift64.
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % n as u64) as usize
    };
    let mut followed = 0;
    for name in ["links.h5", "links_new.h5"] {
        let sound = std::fs::read(file(name)).unwrap();
        for _ in 0..300 {
            let mut bytes = sound.clone();
            for _ in 0..1 + random(20) {
                let at = random(bytes.len() - 8);
                match random(3) {
                    0 => bytes[at] ^= 1 << random(8),
                    1 => bytes[at] = random(256) as u8,
                    _ => bytes[at..at + 8].fill([0x00, 0x7f, 0xff][random(3)]),
                }
            }
            std::fs::write(&path, &bytes).unwrap();
            let Ok(tree) = Hdf5Tree::open(&path) else { continue };
            for group in ["", "g", "many", "chain", "absolute/below", "g/below/self/below"] {
                let _ = tree.children(group);
                followed += tree.lost(group).len();
            }
            followed += ["one", "chain/data", "many/s7", "many/s300"].iter().filter(|path| tree.read(path).is_ok()).count();
        }
    }
    assert!(followed > 1000, "most links outlive the damage: {followed}");
}
