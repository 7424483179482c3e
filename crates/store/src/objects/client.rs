//! Requests to object storage, for threads that wait for their answers: the one place that knows of an asynchronous runtime.
//!
//! Addresses are `s3://BUCKET/…`, `gs://BUCKET/…`, `az://CONTAINER/…`, `http://…` and `https://…`. Credentials, endpoints and
//! regions come from the environment: `AWS_*`, `GOOGLE_*`, `AZURE_*`.

use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::client::{HttpError, HttpErrorKind};
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::path::Path;
use object_store::{ClientOptions, Error, ObjectStore, RetryConfig};
use tokio::runtime::Runtime;

/// How long a server may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a server may stay silent in the middle of an answer.
const SILENCE: Duration = Duration::from_secs(30);
/// How long a request is tried again for.
const RETRIES: Duration = Duration::from_secs(60);

/// Where machines of clouds are asked for credentials: what follows when the environment has none.
const MACHINES: [&str; 3] = ["//169.254.169.254", "//169.254.170.", "//metadata.google.internal"];

/// Kinds of storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    S3,
    Google,
    Azure,
    Http,
}

/// An address, taken apart.
#[derive(Clone, Debug)]
pub(super) struct Address {
    pub scheme: Scheme,
    /// The address as errors call it: without what follows a `?`, which may be a secret.
    pub shown: String,
    /// The bucket or container; for the web the server, with its scheme and what follows a `?`.
    host: String,
    /// The path inside it.
    pub path: Path,
}

impl Address {
    pub fn parse(url: &str) -> io::Result<Address> {
        let refuse = |what: String| io::Error::new(ErrorKind::InvalidInput, what);
        let (name, rest) = url.split_once("://").unwrap_or(("", url));
        let scheme = match name {
            "s3" => Scheme::S3,
            "gs" => Scheme::Google,
            "az" => Scheme::Azure,
            "http" | "https" => Scheme::Http,
            other => {
                let why = "but s3, gs, az, http and https can be read";
                return Err(refuse(format!("an address of the kind '{other}', {why}")));
            }
        };
        let (rest, query) = match rest.split_once('?') {
            Some((rest, query)) if scheme == Scheme::Http => (rest, format!("?{query}")),
            _ => (rest, String::new()),
        };
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        if host.is_empty() {
            return Err(refuse(format!("no name after {name}://")));
        }
        let path = path.trim_matches('/');
        let parsed = if scheme == Scheme::Http { Path::from_url_path(path) } else { Path::parse(path) };
        let path = parsed.map_err(|e| refuse(e.to_string()))?;
        let host = if scheme == Scheme::Http { format!("{name}://{host}{query}") } else { host.to_string() };
        Ok(Address { scheme, shown: format!("{name}://{rest}"), host, path })
    }

    /// A client for it, as the environment says.
    pub fn client(&self) -> Result<Arc<dyn ObjectStore>, Error> {
        // Fails if somebody in this process has chosen already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let options = || {
            let options = ClientOptions::new().with_timeout_disabled().with_connect_timeout(CONNECT).with_read_timeout(SILENCE);
            options.with_allow_http(true)
        };
        let retry = RetryConfig { retry_timeout: RETRIES, max_retries: 6, ..RetryConfig::default() };
        Ok(match self.scheme {
            Scheme::S3 => {
                let s3 = AmazonS3Builder::from_env().with_bucket_name(&self.host);
                Arc::new(s3.with_client_options(options()).with_retry(retry).build()?)
            }
            Scheme::Google => {
                let google = GoogleCloudStorageBuilder::from_env().with_bucket_name(&self.host);
                Arc::new(google.with_client_options(options()).with_retry(retry).build()?)
            }
            Scheme::Azure => {
                let azure = MicrosoftAzureBuilder::from_env().with_container_name(&self.host);
                Arc::new(azure.with_client_options(options()).with_retry(retry).build()?)
            }
            Scheme::Http => Arc::new(HttpBuilder::new().with_url(&self.host).with_client_options(options()).with_retry(retry).build()?),
        })
    }
}

/// The runtime that carries out the requests of this process. A fork has none of its parent's threads and gets its own.
pub(super) fn runtime() -> io::Result<Arc<Runtime>> {
    static RUNTIME: Mutex<Option<(u32, Arc<Runtime>)>> = Mutex::new(None);
    let mut held = RUNTIME.lock().unwrap_or_else(PoisonError::into_inner);
    let here = std::process::id();
    if let Some((process, runtime)) = &*held
        && *process == here
    {
        return Ok(runtime.clone());
    }
    // Two threads decrypt more than a network brings.
    let made = tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name("cellmill-net").enable_all().build()?;
    let made = Arc::new(made);
    // The parent's runtime can't be taken down here: its threads don't exist.
    if let Some(parent) = held.replace((here, made.clone())) {
        std::mem::forget(parent);
    }
    Ok(made)
}

/// What went wrong, as a sentence.
pub(super) fn words(scheme: Scheme, error: &Error) -> io::Error {
    let root = root(error);
    let credentials = match scheme {
        Scheme::S3 => "credentials are read from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (a public bucket: AWS_SKIP_SIGNATURE=true)",
        Scheme::Google => {
            "credentials are read from GOOGLE_SERVICE_ACCOUNT or GOOGLE_APPLICATION_CREDENTIALS (a public bucket: GOOGLE_SKIP_SIGNATURE=true)"
        }
        Scheme::Azure => {
            "credentials are read from AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_KEY \
             (a public container: AZURE_SKIP_SIGNATURE=true)"
        }
        Scheme::Http => "the server wants a user's credentials or does not give this file away",
    };
    let new = |kind, what: String| io::Error::new(kind, what);
    let said = error.to_string();
    if MACHINES.iter().any(|address| said.contains(address)) {
        let what = format!("no credentials: none in the environment, and the machine has no role of its own ({root}); {credentials}");
        return new(ErrorKind::NotConnected, what);
    }
    match error {
        Error::NotFound { .. } => return new(ErrorKind::NotFound, "404: there is no such object".into()),
        Error::PermissionDenied { .. } => return new(ErrorKind::PermissionDenied, format!("403: access is refused; {credentials}")),
        Error::Unauthenticated { .. } => return new(ErrorKind::PermissionDenied, format!("401: access is refused; {credentials}")),
        Error::NotSupported { .. } => {
            let what = "the server answers a request for part of a file with all of it, but parts are needed";
            return new(ErrorKind::Unsupported, what.into());
        }
        _ => {}
    }
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(this) = cause {
        if let Some(http) = this.downcast_ref::<HttpError>() {
            return match http.kind() {
                HttpErrorKind::Connect => new(ErrorKind::ConnectionRefused, format!("no connection to the server ({root})")),
                HttpErrorKind::Timeout => new(ErrorKind::TimedOut, format!("no answer from the server within {} s", SILENCE.as_secs())),
                _ => new(ErrorKind::ConnectionAborted, format!("the server's answer broke off ({root})")),
            };
        }
        cause = this.source();
    }
    new(ErrorKind::Other, format!("the request failed ({root})"))
}

/// The innermost cause, in one line.
fn root(error: &Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    let line = cause.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(300).collect()
}
