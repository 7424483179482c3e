//! Addresses, parts, what is held of what was asked for, and a folder's files.

use super::ahead::{Ahead, Slot};
use super::client::{Address, Scheme, words};
use super::remote::together;
use super::*;

#[test]
fn addresses() {
    let parse = |url| Address::parse(url).map(|a| (a.scheme, a.shown.clone(), a.path.to_string()));
    let found = |scheme, shown: &str, path: &str| Ok::<_, io::Error>((scheme, shown.to_string(), path.to_string()));
    let same = |url, expected: io::Result<(Scheme, String, String)>| assert_eq!(parse(url).unwrap(), expected.unwrap());
    same("s3://bucket/a b/x.zarr/", found(Scheme::S3, "s3://bucket/a b/x.zarr/", "a b/x.zarr"));
    same("gs://bucket", found(Scheme::Google, "gs://bucket", ""));
    same("az://box/x%20y", found(Scheme::Azure, "az://box/x%20y", "x%20y"));
    // A signature is sent, and not shown.
    same("https://host:8/a%20b.h5ad?secret=1", found(Scheme::Http, "https://host:8/a%20b.h5ad", "a b.h5ad"));
    for (url, said) in [("ftp://host/x", "s3, gs, az, http and https"), ("s3:///x", "no name after s3://")] {
        let error = Address::parse(url).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
    for (text, url) in [("s3://b/x", true), ("https://h", true), ("/a/b", false), ("a:/b", false), ("C:\\x", false), ("://x", false)] {
        assert_eq!(is_url(Path::new(text)), url, "{text}");
    }
}

#[test]
fn errors_are_sentences() {
    let said = |scheme, error: object_store::Error| words(scheme, &error).to_string();
    let generic = |what: &str| object_store::Error::Generic { store: "S3", source: what.to_string().into() };
    let path = || "a".to_string();
    let none = said(Scheme::S3, generic("Error performing PUT http://169.254.169.254/latest/api/token in 3s, after 6 retries"));
    assert!(none.starts_with("no credentials: none in the environment") && none.contains("AWS_ACCESS_KEY_ID"), "{none}");
    assert_eq!(said(Scheme::Http, generic("one\n two")), "the request failed (one two)");
    let refused = said(Scheme::Google, object_store::Error::PermissionDenied { path: path(), source: "x".into() });
    assert!(refused.starts_with("403: access is refused") && refused.contains("GOOGLE_APPLICATION_CREDENTIALS"), "{refused}");
    let unknown = said(Scheme::Azure, object_store::Error::Unauthenticated { path: path(), source: "x".into() });
    assert!(unknown.starts_with("401: access is refused") && unknown.contains("AZURE_STORAGE_SAS_KEY"), "{unknown}");
    assert_eq!(said(Scheme::S3, object_store::Error::NotFound { path: path(), source: "x".into() }), "404: there is no such object");
}

#[test]
fn neighbours_are_fetched_together() {
    let part = |at, len| Span::Part { at, len };
    let groups = together(vec![part(100, 10), part(0, 100), part(1 << 20, 5), part(110, 3 << 20), Span::Last(8)]);
    assert_eq!(groups.iter().map(Vec::len).sum::<usize>(), 5);
    assert!(groups.contains(&vec![part(0, 100), part(100, 10), part(110, 3 << 20), part(1 << 20, 5)]), "{groups:?}");
    assert!(groups.contains(&vec![Span::Last(8)]));
    // One request does not grow without end.
    let long: Vec<Span> = (0..100).map(|i| part(i << 20, 1 << 20)).collect();
    assert!(together(long).iter().all(|group| group.len() <= 4));
}

#[test]
fn what_is_asked_for_has_its_room() {
    const MIB: u64 = 1 << 20;
    let mut ahead = Ahead::<u8>::new();
    let ask = |ahead: &mut Ahead<u8>, name: &str, when| {
        let admitted = ahead.admits(name, Span::WHOLE, (30 * MIB, 0), when);
        let slot = Slot::new();
        if admitted {
            ahead.put(name, Span::WHOLE, slot.clone(), None, 30 * MIB);
        }
        admitted.then_some(slot)
    };
    let first = ask(&mut ahead, "a", When::Soon).unwrap();
    assert!(ask(&mut ahead, "a", When::Soon).is_none(), "it is on its way");
    assert!(ask(&mut ahead, "b", When::Soon).is_some());
    assert!(ask(&mut ahead, "c", When::Soon).is_none(), "there is no room");
    assert!(ask(&mut ahead, "c", When::Now).is_some(), "but for what is needed next");
    assert!(ask(&mut ahead, "d", When::Now).is_some());
    assert!(ask(&mut ahead, "e", When::Now).is_none());
    first.put(7);
    assert!(ask(&mut ahead, "e", When::Now).is_some(), "in the place of what came and nobody took");
    assert!(ahead.take("a", Span::WHOLE).is_none());
    assert!(ahead.take("b", Span::WHOLE).is_some());
    assert!(ahead.take("b", Span::WHOLE).is_none());
    // "c" and "d" are on their way, "e" took the place of "a": as they are taken, what found no room has its turn.
    assert!(ask(&mut ahead, "f", When::Soon).is_none());
    assert!(ahead.next(|_| 30 * MIB).is_empty());
    for name in ["c", "d", "e"] {
        assert!(ahead.take(name, Span::WHOLE).is_some());
    }
    assert!(ahead.take("f", Span::WHOLE).is_none() && ahead.next(|_| 30 * MIB).is_empty(), "it has been read meanwhile");
    for name in ["f", "g", "h", "i"] {
        ask(&mut ahead, name, When::Soon);
    }
    assert!(ahead.take("f", Span::WHOLE).is_some() && ahead.take("g", Span::WHOLE).is_some());
    assert_eq!(ahead.next(|_| 30 * MIB).iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["h", "i"]);
    // One that is needed at once brings those behind it.
    let part = |at| Span::Part { at, len: MIB };
    ahead.put("full", Span::WHOLE, Slot::new(), None, 64 * MIB);
    assert!((0..9).all(|at| !ahead.admits("j", part(at), (MIB, 0), When::Soon)));
    assert_eq!(ahead.hurry("j", part(3), |_| MIB), [("j".to_string(), (3..7).map(part).collect::<Vec<_>>())]);
    assert!(ahead.hurry("j", part(3), |_| MIB).is_empty());
    ahead.take("full", Span::WHOLE);
    assert_eq!(ahead.next(|_| MIB), [("j".to_string(), [0, 1, 2, 7, 8].map(part).to_vec())]);
    let slot = Slot::new();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| slot.wait());
        slot.put(3);
        assert_eq!(waiting.join().unwrap(), 3);
    });
}

#[test]
fn parts_of_a_file() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("X/c")).unwrap();
    std::fs::write(dir.path().join("X/c/0"), b"0123456789").unwrap();
    let objects = Folder::new(dir.path());
    let mut bytes = Vec::new();
    let mut read =
        |name: &str, span| objects.read(name, span, &mut bytes).map(|found| (found, String::from_utf8(bytes.clone()).unwrap())).unwrap();
    assert_eq!(read("X/c/0", Span::WHOLE), (Found::Whole, "0123456789".into()));
    assert_eq!(read("X/c/0", Span::Part { at: 2, len: 3 }), (Found::Whole, "234".into()));
    assert_eq!(read("X/c/0", Span::Last(4)), (Found::Whole, "6789".into()));
    assert_eq!(read("X/c/1", Span::WHOLE).0, Found::Absent);
    assert_eq!(read("X/c/0/more", Span::WHOLE).0, Found::Absent);
    for span in [Span::All { most: 9 }, Span::Part { at: 8, len: 3 }, Span::Part { at: u64::MAX, len: 3 }, Span::Last(11)] {
        assert_eq!(read("X/c/0", span).0, Found::Other(10));
    }
    assert_eq!(objects.sizes(&["X/c/0".into(), "nothing".into()]).unwrap(), [Some(10), None]);
    assert_eq!(objects.folders("X").unwrap(), ["c"]);
}
