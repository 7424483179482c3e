//! Arrays of numbers in a journal: as their bytes, not number by number.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};

use super::{Journal, Summed, whole};

impl Journal {
    /// Keeps arrays of numbers under a name, as [`Journal::save`] keeps values.
    pub fn save_arrays(&self, name: &str, arrays: &[&[u8]]) {
        if self.trouble().is_none()
            && let Err(e) = self.keep_arrays(name, arrays)
        {
            self.fail(&e);
        }
    }

    /// Keeps arrays of numbers under a name, as [`Journal::keep`] keeps values.
    pub fn keep_arrays(&self, name: &str, arrays: &[&[u8]]) -> io::Result<()> {
        whole(&self.folder, name, |file| {
            let mut w = Summed { inner: file, sum: crc32fast::Hasher::new() };
            let lens: Vec<u8> = arrays.iter().flat_map(|array| (array.len() as u64).to_le_bytes()).collect();
            w.write_all(&lens)?;
            arrays.iter().try_for_each(|array| w.write_all(array))?;
            let Summed { inner, sum } = w;
            inner.write_all(&sum.finalize().to_le_bytes())
        })
    }

    /// The `n` arrays of a name, if they are there and whole.
    pub fn load_arrays(&self, name: &str, n: usize) -> Option<Arrays> {
        if !self.is_whole(name) {
            return None;
        }
        let mut file = File::open(self.folder.join(name)).ok()?;
        let mut lens = vec![0u64; n];
        file.read_exact(bytemuck::cast_slice_mut(&mut lens)).ok()?;
        lens.iter_mut().for_each(|len| *len = u64::from_le(*len));
        let all = lens.iter().try_fold(8 * n as u64 + 4, |sum, &len| sum.checked_add(len))?;
        (file.metadata().ok()?.len() == all).then(|| Arrays { file, lens: lens.into() })
    }
}

/// Arrays that are read one after the other.
pub struct Arrays {
    file: File,
    lens: VecDeque<u64>,
}

impl Arrays {
    /// The next one, if it has whole numbers of this type.
    #[allow(clippy::should_implement_trait)] // of a type that the caller knows
    pub fn next<T: bytemuck::Pod>(&mut self) -> Option<Vec<T>> {
        let len = usize::try_from(self.lens.pop_front()?).ok().filter(|len| len.is_multiple_of(size_of::<T>()))?;
        let mut numbers = vec![T::zeroed(); len / size_of::<T>()];
        self.file.read_exact(bytemuck::cast_slice_mut(&mut numbers)).ok()?;
        Some(numbers)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn arrays_are_there_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::begin(dir.path(), &Vec::new()).unwrap();
        let (ids, weights) = (vec![7u32, 8, 9], vec![0.5f32]);
        let load = |n| {
            let mut arrays = journal.load_arrays("graph", n)?;
            Some((arrays.next::<u32>()?, arrays.next::<u64>()?, arrays.next::<f32>()?))
        };
        assert!(load(3).is_none(), "absent");
        journal.save_arrays("graph", &[bytemuck::cast_slice(&ids), &[], bytemuck::cast_slice(&weights)]);
        assert_eq!(load(3).unwrap(), (ids, vec![], weights));
        assert!(load(2).is_none() && load(4).is_none(), "another number of them");
        assert!(journal.load_arrays("graph", 3).unwrap().next::<u64>().is_none(), "12 bytes are no numbers of 8");
        let path = dir.path().join("graph");
        let mut bytes = fs::read(&path).unwrap();
        bytes[26] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert!(load(3).is_none(), "damaged");
    }
}
