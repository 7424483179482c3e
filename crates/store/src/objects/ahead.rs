//! Parts of objects that have been asked for and not yet been read, and parts that will be asked for when there is room.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::{Span, When};

/// Bytes that are asked for before they are needed: about half a second of a fast network.
const ROOM: u64 = 64 << 20;
/// Bytes that are asked for out of turn with a part that is needed at once.
const AT_ONCE: u64 = 4 << 20;
/// Parts that wait for their turn, at most.
const WISHES: usize = 1 << 16;

/// An answer to come, and whoever waits for it.
#[derive(Debug)]
pub(super) struct Slot<T> {
    answer: Mutex<Option<T>>,
    come: Condvar,
}

impl<T: Clone> Slot<T> {
    pub fn new() -> Arc<Self> {
        Arc::new(Slot { answer: Mutex::new(None), come: Condvar::new() })
    }

    pub fn put(&self, answer: T) {
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
        self.come.notify_all();
    }

    pub fn wait(&self) -> T {
        let mut held = self.answer.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match &*held {
                Some(answer) => return answer.clone(),
                None => held = self.come.wait(held).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    fn is_there(&self) -> bool {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

/// One part that was asked for.
#[derive(Debug)]
pub(super) struct Ticket<T> {
    /// The answer that it is in.
    pub slot: Arc<Slot<T>>,
    /// Its place in that answer; all of it without.
    pub part: Option<Range<usize>>,
    weight: u64,
    turn: u64,
}

/// What has been asked for, by object and part, at most so many bytes of it; and what is to be asked for when there is room.
#[derive(Debug)]
pub(super) struct Ahead<T> {
    asked: HashMap<(String, Span), Ticket<T>>,
    held: u64,
    turn: u64,
    /// In the order in which it was wished for; what has been read meanwhile is no longer in `wished`.
    queue: VecDeque<(String, Span)>,
    wished: HashSet<(String, Span)>,
}

impl<T: Clone> Ahead<T> {
    pub fn new() -> Self {
        Ahead { asked: HashMap::new(), held: 0, turn: 0, queue: VecDeque::new(), wished: HashSet::new() }
    }

    /// Bytes that are held at most.
    pub fn most() -> u64 {
        2 * ROOM
    }

    /// Whether a part of `weight` bytes, beside `more` bytes, may be asked for now; if there is no room, it waits for its turn. What is
    /// needed at once may take twice the room, and the place of what came long ago and nobody took.
    pub fn admits(&mut self, name: &str, span: Span, (weight, more): (u64, u64), when: When) -> bool {
        let key = (name.to_string(), span);
        if self.asked.contains_key(&key) || (when == When::Soon && self.wished.contains(&key)) {
            return false;
        }
        let most = if when == When::Soon { ROOM } else { Self::most() };
        while self.held + more + weight > most {
            let idle = self.asked.iter().filter(|(_, ticket)| when == When::Now && ticket.slot.is_there());
            let Some(oldest) = idle.min_by_key(|(_, ticket)| ticket.turn).map(|(key, _)| key.clone()) else {
                if self.wished.len() < WISHES && self.wished.insert(key.clone()) {
                    self.queue.push_back(key);
                }
                return false;
            };
            self.take(&oldest.0, oldest.1);
        }
        self.wished.remove(&key);
        true
    }

    /// What is to be asked for now, by object: nothing until half of the room is free, then as much as there is room for.
    pub fn next(&mut self, weight: impl Fn(Span) -> u64) -> Vec<(String, Vec<Span>)> {
        if self.held > ROOM / 2 { Vec::new() } else { self.dequeue(0, ROOM.saturating_sub(self.held), weight) }
    }

    /// A part that waits for its turn and is needed at once, and what follows it in the queue, by object: whoever needs one needs the next.
    pub fn hurry(&mut self, name: &str, span: Span, weight: impl Fn(Span) -> u64) -> Vec<(String, Vec<Span>)> {
        let key = (name.to_string(), span);
        if !self.wished.contains(&key) {
            return Vec::new();
        }
        let at = self.queue.iter().position(|wish| *wish == key).unwrap_or(0);
        self.dequeue(at, AT_ONCE.min(Self::most().saturating_sub(self.held)), weight)
    }

    /// Takes parts of at most so many bytes from a place of the queue on.
    fn dequeue(&mut self, at: usize, most: u64, weight: impl Fn(Span) -> u64) -> Vec<(String, Vec<Span>)> {
        let mut next: Vec<(String, Vec<Span>)> = Vec::new();
        let (mut end, mut bytes) = (at, 0);
        while let Some(key) = self.queue.get(end) {
            if self.wished.contains(key) {
                bytes += weight(key.1);
                if bytes > most && !next.is_empty() {
                    break;
                }
                self.wished.remove(key);
                match next.last_mut() {
                    Some((same, spans)) if *same == key.0 => spans.push(key.1),
                    _ => next.push((key.0.clone(), vec![key.1])),
                }
            }
            end += 1;
        }
        self.queue.drain(at..end);
        next
    }

    /// Remembers what was asked for.
    pub fn put(&mut self, name: &str, span: Span, slot: Arc<Slot<T>>, part: Option<Range<usize>>, weight: u64) {
        self.turn += 1;
        self.held += weight;
        let ticket = Ticket { slot, part, weight, turn: self.turn };
        if let Some(earlier) = self.asked.insert((name.to_string(), span), ticket) {
            self.held -= earlier.weight;
        }
    }

    /// Takes a part that was asked for.
    pub fn take(&mut self, name: &str, span: Span) -> Option<Ticket<T>> {
        let key = (name.to_string(), span);
        self.wished.remove(&key);
        let ticket = self.asked.remove(&key)?;
        self.held -= ticket.weight;
        Some(ticket)
    }
}
