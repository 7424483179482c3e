//! The main job as one call: open, analyse, write.
