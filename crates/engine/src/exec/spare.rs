//! Memory that is used again.

use std::sync::Mutex;

/// What one task lays down, another takes up: the pages of large vectors are asked of the system once, not for each task.
#[derive(Debug)]
pub struct Spare<T>(Mutex<Vec<T>>);

impl<T> Default for Spare<T> {
    fn default() -> Self {
        Spare(Mutex::new(Vec::new()))
    }
}

impl<T: Default> Spare<T> {
    /// Something that was used before, with whatever it holds; or something new.
    pub fn take(&self) -> T {
        self.0.lock().map_or_else(|_| T::default(), |mut held| held.pop().unwrap_or_default())
    }

    /// Lays it down.
    pub fn give(&self, thing: T) {
        if let Ok(mut held) = self.0.lock() {
            held.push(thing);
        }
    }
}
