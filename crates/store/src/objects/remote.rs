//! The objects below a URL.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use object_store::path::Path as Key;
use object_store::{Error, GetOptions, GetRange, ObjectMeta, ObjectStore};
use tokio::sync::Semaphore;

use super::ahead::{Ahead, Slot};
use super::client::{Address, Scheme, runtime, words};
use super::{Found, Objects, Span, When};

/// Requests on their way at a time.
const IN_FLIGHT: usize = 64;
/// Parts of an object this near to each other are fetched by one request.
const GAP: u64 = 32 << 10;
/// Bytes that one request for several parts fetches at most.
const TOGETHER: u64 = 4 << 20;

/// What a server says to a request: bytes and the size of the whole object, or that there is no such object, or (no bytes) that it is too
/// short for what was asked of it.
#[derive(Clone, Debug)]
enum Answer {
    Bytes(Bytes, u64),
    Absent,
    Other(u64),
}

type Answered = Result<Answer, Trouble>;

/// An I/O error that can be told several times.
#[derive(Clone, Debug)]
struct Trouble {
    kind: io::ErrorKind,
    what: String,
}

impl From<io::Error> for Trouble {
    fn from(e: io::Error) -> Self {
        Trouble { kind: e.kind(), what: e.to_string() }
    }
}

impl Trouble {
    fn of(self, name: &str) -> io::Error {
        let what = if name.is_empty() { self.what } else { format!("{name}: {}", self.what) };
        io::Error::new(self.kind, what)
    }
}

/// A client, and what it has been asked for.
#[derive(Debug)]
struct Session {
    /// The process that it belongs to: a fork needs one of its own.
    process: u32,
    client: Arc<dyn ObjectStore>,
    ahead: Ahead<Answered>,
}

/// The objects below a URL, or (by the empty name) the object at it.
#[derive(Debug)]
pub(crate) struct Remote {
    address: Address,
    session: Mutex<Session>,
    doors: Arc<Semaphore>,
    /// Bytes of the object that came last, whole: what the next ones may have.
    usual: Arc<AtomicU64>,
}

impl Remote {
    pub fn open(url: &Path) -> io::Result<Remote> {
        let address = Address::parse(&url.to_string_lossy())?;
        let session = Mutex::new(Session::begin(&address)?);
        Ok(Remote { address, session, doors: Arc::new(Semaphore::new(IN_FLIGHT)), usual: Arc::default() })
    }

    /// The URL as errors call it.
    pub fn shown(&self) -> &str {
        &self.address.shown
    }

    /// Whether folders can be listed.
    pub fn lists(&self) -> bool {
        self.address.scheme != Scheme::Http
    }

    /// What tells each object from its other versions: size, and ETag or time. `None` where there is none, or none to be seen.
    pub fn versions(&self, names: &[String]) -> io::Result<Vec<Option<String>>> {
        // One byte is asked for: a signed address allows nothing else.
        let first = GetOptions::new().with_range(Some(GetRange::Bounded(0..1)));
        let version = |meta: ObjectMeta| format!("{} {}", meta.size, meta.e_tag.unwrap_or_else(|| meta.last_modified.to_rfc3339()));
        Ok(self.about(names, &first)?.into_iter().map(|found| found.map(version)).collect())
    }

    /// The first bytes of the object at the URL, at most so many, and its size; `None` if there is none.
    pub fn begin(&self, most: u64) -> io::Result<Option<(Vec<u8>, u64)>> {
        let client = self.session()?.client.clone();
        let first = self.start(&client, "", |client, key| async move {
            let range = Some(GetRange::Bounded(0..most));
            match client.get_opts(&key, GetOptions::new().with_range(range)).await {
                Ok(found) => {
                    let size = found.meta.size;
                    Ok(Some((found.bytes().await?.to_vec(), size)))
                }
                Err(Error::NotFound { .. }) => Ok(None),
                Err(e) => Err(e),
            }
        })?;
        first.wait().map_err(|e| e.of(""))
    }

    fn session(&self) -> io::Result<MutexGuard<'_, Session>> {
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        if session.process != std::process::id() {
            *session = Session::begin(&self.address)?;
        }
        Ok(session)
    }

    fn key(&self, name: &str) -> io::Result<Key> {
        let base = self.address.path.as_ref();
        let text = match (base.is_empty(), name.is_empty()) {
            (_, true) => base.to_string(),
            (true, _) => name.to_string(),
            _ => format!("{base}/{name}"),
        };
        Key::parse(text).map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e.to_string()))
    }

    /// Sends a request on its way, as soon as few enough are.
    fn start<T, F>(
        &self,
        client: &Arc<dyn ObjectStore>,
        name: &str,
        request: impl FnOnce(Arc<dyn ObjectStore>, Key) -> F,
    ) -> io::Result<Arc<Slot<Result<T, Trouble>>>>
    where
        T: Clone + Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let slot = Slot::new();
        let (answer, doors, scheme) = (slot.clone(), self.doors.clone(), self.address.scheme);
        let request = request(client.clone(), self.key(name)?);
        runtime()?.spawn(async move {
            let _open = doors.acquire().await;
            answer.put(request.await.map_err(|e| words(scheme, &e).into()));
        });
        Ok(slot)
    }

    fn ask(&self, client: &Arc<dyn ObjectStore>, name: &str, span: Span) -> io::Result<Arc<Slot<Answered>>> {
        let usual = self.usual.clone();
        self.start(client, name, |client, key| async move {
            let found = fetch(&*client, &key, span).await?;
            if let (Span::All { .. }, Answer::Bytes(bytes, _)) = (span, &found) {
                usual.store(bytes.len() as u64, Ordering::Relaxed);
            }
            Ok(found)
        })
    }

    /// What an answer to these requests says of each object.
    fn about(&self, names: &[String], request: &GetOptions) -> io::Result<Vec<Option<ObjectMeta>>> {
        let client = self.session()?.client.clone();
        let ask = |name: &String| {
            let request = request.clone();
            self.start(&client, name, |client, key| async move {
                match client.get_opts(&key, request).await {
                    Ok(found) => Ok(Some(found.meta)),
                    Err(Error::NotFound { .. } | Error::PermissionDenied { .. }) => Ok(None),
                    Err(e) if is_past_end(&e) => Ok(None),
                    // A server that gives nothing but whole objects.
                    Err(Error::NotSupported { .. }) => Ok(Some(client.get_opts(&key, head()).await?.meta)),
                    Err(e) => Err(e),
                }
            })
        };
        let asked: Vec<_> = names.iter().map(ask).collect::<io::Result<_>>()?;
        asked.iter().zip(names).map(|(slot, name)| slot.wait().map_err(|e| e.of(name))).collect()
    }

    /// Asks for parts of an object, neighbours by one request.
    fn send(&self, session: &mut Session, name: &str, spans: Vec<Span>) {
        for group in together(spans) {
            let (Some(&first), Some(&last)) = (group.first(), group.last()) else { continue };
            let whole = match (first, last) {
                (Span::Part { at, .. }, Span::Part { at: end, len }) => Span::Part { at, len: end + len - at },
                _ => first,
            };
            let Ok(slot) = self.ask(&session.client, name, whole) else { return };
            for span in group {
                let part = match (whole, span) {
                    (Span::Part { at: first, .. }, Span::Part { at, len }) => Some((at - first) as usize..(at - first + len) as usize),
                    _ => None,
                };
                session.ahead.put(name, span, slot.clone(), part, self.weight(span));
            }
        }
    }

    /// Bytes that a part may have.
    fn weight(&self, span: Span) -> u64 {
        match span {
            Span::Part { len, .. } | Span::Last(len) => len,
            Span::All { most } => match self.usual.load(Ordering::Relaxed) {
                0 => (most / 8).clamp(1 << 10, 8 << 20),
                usual => usual.min(most),
            },
        }
    }
}

impl Session {
    fn begin(address: &Address) -> io::Result<Session> {
        let client = address.client().map_err(|e| words(address.scheme, &e))?;
        Ok(Session { process: std::process::id(), client, ahead: Ahead::new() })
    }
}

/// One request.
async fn fetch(client: &dyn ObjectStore, key: &Key, span: Span) -> Result<Answer, Error> {
    let range = match span {
        Span::All { .. } => None,
        Span::Part { len: 0, .. } | Span::Last(0) => return Ok(Answer::Bytes(Bytes::new(), 0)),
        Span::Part { at, len } => Some(GetRange::Bounded(at..at.saturating_add(len))),
        Span::Last(len) => Some(GetRange::Suffix(len)),
    };
    let size = async || client.get_opts(key, head()).await.map(|found| found.meta.size);
    let found = match client.get_opts(key, GetOptions::new().with_range(range)).await {
        Ok(found) => found,
        Err(Error::NotFound { .. }) => return Ok(Answer::Absent),
        // Some storage knows no request for the end of an object.
        Err(Error::NotSupported { .. }) if matches!(span, Span::Last(_)) => {
            let size = size().await?;
            let Some((at, end)) = span.within(size) else { return Ok(Answer::Other(size)) };
            client.get_opts(key, GetOptions::new().with_range(Some(GetRange::Bounded(at..end)))).await?
        }
        // Past the end of an object there is nothing to answer with.
        Err(e) if is_past_end(&e) => return Ok(Answer::Other(size().await?)),
        Err(e) => return Err(e),
    };
    let size = found.meta.size;
    match span.within(size) {
        Some(_) => Ok(Answer::Bytes(found.bytes().await?, size)),
        None => Ok(Answer::Other(size)),
    }
}

/// A request for what is known of an object, without its bytes.
fn head() -> GetOptions {
    GetOptions::new().with_head(true)
}

/// Whether a request was for bytes past the end of an object.
fn is_past_end(error: &Error) -> bool {
    error.to_string().contains("status code: 416")
}

/// Neighbouring parts, as one request fetches them. Other parts stay alone.
pub(super) fn together(mut spans: Vec<Span>) -> Vec<Vec<Span>> {
    spans.sort_by_key(|span| match span {
        Span::Part { at, .. } => *at,
        _ => u64::MAX,
    });
    let mut groups: Vec<Vec<Span>> = Vec::new();
    for span in spans {
        if let (Some(group), Span::Part { at, len }) = (groups.last_mut(), span)
            && let (Some(&Span::Part { at: first, .. }), Some(&Span::Part { at: before, len: its })) = (group.first(), group.last())
            && at <= before.saturating_add(its).saturating_add(GAP)
            && at.saturating_add(len).saturating_sub(first) <= TOGETHER
        {
            group.push(span);
        } else {
            groups.push(vec![span]);
        }
    }
    groups
}

impl Objects for Remote {
    fn read(&self, name: &str, span: Span, into: &mut Vec<u8>) -> io::Result<Found> {
        into.clear();
        let (slot, part) = {
            let mut session = self.session()?;
            match session.ahead.take(name, span) {
                Some(ticket) => {
                    for (name, spans) in session.ahead.next(|span| self.weight(span)) {
                        self.send(&mut session, &name, spans);
                    }
                    (ticket.slot, ticket.part)
                }
                None => (self.ask(&session.client, name, span)?, None),
            }
        };
        match slot.wait().map_err(|e| e.of(name))? {
            Answer::Absent => Ok(Found::Absent),
            Answer::Other(size) => Ok(Found::Other(size)),
            Answer::Bytes(bytes, size) => {
                let Some(bytes) = bytes.get(part.unwrap_or(0..bytes.len())) else { return Ok(Found::Other(size)) };
                let whole = match span {
                    Span::All { most } => bytes.len() as u64 <= most,
                    Span::Part { len, .. } | Span::Last(len) => bytes.len() as u64 == len,
                };
                if !whole {
                    return Ok(Found::Other(size));
                }
                into.extend_from_slice(bytes);
                Ok(Found::Whole)
            }
        }
    }

    fn will_read(&self, name: &str, spans: &[Span], when: When) {
        // Whatever fails here fails again, with its message, when it is read.
        let Ok(mut session) = self.session() else { return };
        let mut wanted = Vec::new();
        let mut weight = 0;
        for &span in spans {
            if when == When::Now {
                for (name, spans) in session.ahead.hurry(name, span, |span| self.weight(span)) {
                    self.send(&mut session, &name, spans);
                }
            }
            if session.ahead.admits(name, span, (self.weight(span), weight), when) {
                weight += self.weight(span);
                wanted.push(span);
            }
        }
        self.send(&mut session, name, wanted);
    }

    fn sizes(&self, names: &[String]) -> io::Result<Vec<Option<u64>>> {
        Ok(self.about(names, &head())?.into_iter().map(|found| found.map(|meta| meta.size)).collect())
    }

    fn folders(&self, name: &str) -> io::Result<Vec<String>> {
        let client = self.session()?.client.clone();
        let list = self.start(&client, name, |client, key| async move {
            let found = client.list_with_delimiter(Some(&key)).await?;
            Ok(found.common_prefixes.iter().filter_map(|folder| folder.filename().map(str::to_string)).collect())
        })?;
        list.wait().map_err(|e| e.of(name))
    }

    fn is_far(&self) -> bool {
        true
    }

    fn held_bytes(&self) -> u64 {
        Ahead::<Answered>::most()
    }
}
