//! What computes: the threads of the CPU, or GPUs beside them.

use std::sync::Arc;

use crate::device::Device;

/// What computes the heavy parts.
#[derive(Clone, Debug, Default)]
pub enum Processor {
    /// The threads of the installed pool.
    #[default]
    Cpu,
    /// GPUs of this machine, at least one, fed by these threads. Results do not depend on how many there are.
    Cuda(Vec<Arc<Device>>),
}

impl Processor {
    /// The first GPU, if there is one.
    pub fn device(&self) -> Option<&Arc<Device>> {
        self.devices().first()
    }

    /// The GPUs.
    pub fn devices(&self) -> &[Arc<Device>] {
        match self {
            Processor::Cpu => &[],
            Processor::Cuda(devices) => devices,
        }
    }

    /// The last GPU alone, for what is done beside the work of the first.
    pub fn last(&self) -> Processor {
        self.devices().last().map_or(Processor::Cpu, |device| Processor::Cuda(vec![device.clone()]))
    }
}
