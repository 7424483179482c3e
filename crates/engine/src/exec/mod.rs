//! Who calls: tasks over row ranges, run on the threads of the installed pool, merged in a tree that row order alone decides.

mod order;
mod spare;
mod task;

pub use order::{Tree, in_order};
pub use spare::Spare;
pub(crate) use task::chunk_end;
pub use task::{Aside, Done, Feed, Scratch, TASK_ROWS, THREAD_BYTES, Task, TaskOutput, cut, part, run, sliced, task_of};
