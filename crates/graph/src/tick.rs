//! Temporary.
#![allow(missing_docs, clippy::print_stderr)]
use std::sync::Mutex;
use std::time::{Duration, Instant};
static LAST: Mutex<Option<Instant>> = Mutex::new(None);
pub fn tick(name: &str) {
    let mut last = LAST.lock().unwrap();
    let now = Instant::now();
    if let Some(before) = *last { eprintln!("{:9.1} ms  {name}", (now - before).as_secs_f64() * 1e3); }
    *last = Some(now);
}
#[derive(Default)]
pub struct Sums(Vec<(&'static str, Duration)>, Option<Instant>);
impl Sums {
    pub fn start(&mut self) { self.1 = Some(Instant::now()); }
    pub fn add(&mut self, name: &'static str) {
        let now = Instant::now();
        if let Some(b) = self.1 { match self.0.iter_mut().find(|x| x.0 == name) { Some(x) => x.1 += now - b, None => self.0.push((name, now - b)) } }
        self.1 = Some(now);
    }
    pub fn print(&self, what: &str) { eprintln!("      {what}: {}", self.0.iter().map(|(n, d)| format!("{n} {:.1}", d.as_secs_f64() * 1e3)).collect::<Vec<_>>().join(", ")); }
}
