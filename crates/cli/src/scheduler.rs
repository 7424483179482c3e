//! A Dask scheduler, reached through the Python package: a process of Python's beside ours answers lines of JSON.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use cellmill_matrix::{Error, ErrorKind, Place, Result};
use cellmill_run::cluster::{Dispatcher, Order};
use serde_json::{Value, json};

/// What Python runs. Its first line says the version of the package, or what is missing.
const START: &str = "
import json, sys
try:
    import distributed
    from cellmill._crew import serve
except ImportError as error:
    print(json.dumps({'missing': str(error)}))
else:
    serve(sys.argv[1])
";

/// A scheduler.
pub struct Scheduler {
    address: String,
    line: Mutex<Line>,
}

/// Both ends of the conversation.
struct Line {
    child: Child,
    /// Gone when all is said.
    ask: Option<ChildStdin>,
    hear: BufReader<ChildStdout>,
}

impl Scheduler {
    /// Connects to the scheduler at an address. Python is `CELLMILL_PYTHON`, or else `python3`.
    pub fn connect(address: &str) -> Result<Self> {
        let python = std::env::var("CELLMILL_PYTHON").unwrap_or_else(|_| "python3".into());
        let install = "it reaches Dask through the Python package: pip install \"cellmill[distributed]\", or name a Python that has it in CELLMILL_PYTHON";
        let missing = |why: String| Error::option("--scheduler", format!("{python}: {why}"), install);
        let mut command = Command::new(&python);
        command.args(["-c", START, address]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|e| missing(e.to_string()))?;
        let (Some(ask), Some(hear)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Error::bug("a process without its pipes"));
        };
        let scheduler =
            Scheduler { address: address.to_string(), line: Mutex::new(Line { child, ask: Some(ask), hear: BufReader::new(hear) }) };
        let first = scheduler.hear()?;
        if let Some(why) = first["missing"].as_str() {
            return Err(missing(why.to_string()));
        }
        let version = scheduler.answer(first)?;
        let ours = env!("CARGO_PKG_VERSION");
        match version.as_str() {
            Some(theirs) if theirs == ours => Ok(scheduler),
            _ => Err(missing(format!("cellmill {}, and this is {ours}", version.as_str().unwrap_or("of no version")))),
        }
    }

    fn with<T>(&self, talk: impl FnOnce(&mut Line) -> std::io::Result<T>) -> Result<T> {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        talk(&mut line).map_err(|e| Error::io(Place::store(self.address.clone()), &e))
    }

    /// The next line that Python says.
    fn hear(&self) -> Result<Value> {
        let mut text = String::new();
        self.with(|line| line.hear.read_line(&mut text))?;
        let gone =
            || ErrorKind::Io { place: Place::store(self.address.clone()), message: "the process that speaks with it has ended".into() };
        serde_json::from_str(&text).map_err(|_| gone().into())
    }

    fn answer(&self, mut said: Value) -> Result<Value> {
        match said["error"].as_str() {
            None => Ok(said["ok"].take()),
            Some(error) => Err(ErrorKind::Io { place: Place::store(self.address.clone()), message: error.into() }.into()),
        }
    }

    /// Calls a method of the package's `Crew`: its name and arguments in a list.
    fn ask(&self, question: &Value) -> Result<Value> {
        self.with(|line| match &mut line.ask {
            Some(ask) => writeln!(ask, "{question}"),
            None => Ok(()),
        })?;
        let said = self.hear()?;
        self.answer(said)
    }
}

impl Dispatcher for Scheduler {
    fn n_workers(&self) -> Result<usize> {
        let n = self.ask(&json!(["n_workers"]))?;
        Ok(n.as_u64().unwrap_or(0) as usize)
    }

    fn rooms(&self) -> Result<Vec<(String, u64)>> {
        serde_json::from_value(self.ask(&json!(["rooms"]))?).map_err(|e| Error::bug(e.to_string()))
    }

    fn gpus(&self) -> Result<Vec<(String, Option<String>)>> {
        serde_json::from_value(self.ask(&json!(["gpus"]))?).map_err(|e| Error::bug(e.to_string()))
    }

    fn submit(&self, orders: &[Order]) -> Result<()> {
        let orders: Vec<Value> = orders.iter().map(|o| json!([o.key, o.message, o.tasks.start, o.tasks.end, o.n_tasks, o.needs])).collect();
        self.ask(&json!(["submit", orders])).map(drop)
    }

    fn carried_out(&self) -> Result<Vec<usize>> {
        let mut said = self.ask(&json!(["carried_out"]))?;
        match said[1].as_str() {
            None => serde_json::from_value(said[0].take()).map_err(|e| Error::bug(e.to_string())),
            Some(refused) => Err(serde_json::from_str(refused).unwrap_or_else(|_| Error::bug(refused))),
        }
    }

    fn cancel(&self) {
        // Orders that can't be taken back are carried out in vain.
        let _ = self.ask(&json!(["cancel"]));
    }

    fn leave(&self, run: &str) {
        // A worker that does not hear of it forgets the run when the next one comes.
        let _ = self.ask(&json!(["leave", run]));
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        // Python ends when nobody asks any more.
        let _ = self.with(|line| {
            line.ask = None;
            line.child.wait()
        });
    }
}
