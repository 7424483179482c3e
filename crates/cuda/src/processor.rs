//! What computes: the threads of the CPU, or a GPU beside them.

use std::sync::Arc;

use crate::device::Device;

/// What computes the heavy parts.
#[derive(Clone, Debug, Default)]
pub enum Processor {
    /// The threads of the installed pool.
    #[default]
    Cpu,
    /// A GPU, fed by these threads.
    Cuda(Arc<Device>),
}

impl Processor {
    /// The GPU, if there is one.
    pub fn device(&self) -> Option<&Arc<Device>> {
        match self {
            Processor::Cpu => None,
            Processor::Cuda(device) => Some(device),
        }
    }
}
