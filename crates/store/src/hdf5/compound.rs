//! Datasets of records: the data frames of h5ad files written before anndata 0.7.

use std::collections::HashSet;

use cellmill_matrix::{Array, Column, Error, Result, Values};
use hdf5_pure::{CompoundMember, Datatype};

use super::heap::{Heaps, REFERENCE, fixed};
use super::kind::{Kind, kind_of, swap_bytes};
use super::tree::{Hdf5Tree, guard, numbers};

use crate::numbers::from_half;
pub use crate::tree::COMPOUND;

impl Hdf5Tree {
    /// The fields of a dataset of records (`(n,)`), each with all of its values: `(n,)`, or `(n, k)` for a field that is an
    /// array. Fields of a type that we can't hold are left out.
    pub fn read_compound_arrays(&self, path: &str) -> Result<Vec<(String, Array)>> {
        let place = || self.file().place(path);
        let dataset = self.dataset(path)?;
        let datatype = guard(place, || dataset.datatype())?;
        let Datatype::Compound { members, size } = &datatype else {
            return Err(Error::invalid(place(), kind_of(&datatype).1, "a dataset of records (compound) is expected"));
        };
        let chunks = self.stored(path)?;
        let n = chunks.info_shape().first().copied().unwrap_or(1);
        let bytes = chunks.read_rows(0..n)?;
        let size = (*size as usize).max(1);
        let mut names = HashSet::new();
        let mut fields = Vec::new();
        for member in members {
            if !names.insert(member.name.as_str()) {
                return Err(Error::invalid(
                    place(),
                    format!("two fields '{}'", member.name),
                    "names of fields differ; the file is damaged",
                ));
            }
            if let Some(array) = self.field(path, member, &bytes, size)? {
                fields.push((member.name.clone(), array));
            }
        }
        Ok(fields)
    }

    /// The fields of a dataset of records that are one value a record, in order.
    pub fn read_compound(&self, path: &str) -> Result<Vec<(String, Column)>> {
        let fields = self.read_compound_arrays(path)?;
        Ok(fields.into_iter().filter(|(_, a)| a.shape.len() == 1).map(|(name, a)| (name, Column::Plain(a.values))).collect())
    }

    fn field(&self, path: &str, member: &CompoundMember, bytes: &[u8], size: usize) -> Result<Option<Array>> {
        let place = || self.file().place(&format!("{path}/{}", member.name));
        let (base, lengths): (&Datatype, &[u32]) = match &member.datatype {
            Datatype::Array { base_type, dimensions } => (base_type, dimensions),
            other => (other, &[]),
        };
        let (kind, _) = kind_of(base);
        if kind == Kind::Other {
            return Ok(None);
        }
        let entry = base.type_size() as usize;
        let width = lengths.iter().try_fold(entry as u64, |all, &n| all.checked_mul(u64::from(n)));
        let (Ok(from), Some(Ok(width))) = (usize::try_from(member.byte_offset), width.map(usize::try_from)) else {
            return Err(Error::invalid(place(), "a field too large", "it lies inside its record; the file is damaged"));
        };
        if from.checked_add(width).is_none_or(|end| end > size) || entry == 0 {
            return Err(Error::invalid(
                place(),
                format!("bytes {from}.. of a record of {size}"),
                "a field lies inside its record; the file is damaged",
            ));
        }
        let mut own = Vec::with_capacity(bytes.len() / size * width);
        for record in bytes.chunks_exact(size) {
            own.extend_from_slice(&record[from..from + width]);
        }
        let mut shape = vec![bytes.len() / size];
        shape.extend(lengths.iter().map(|&n| n as usize));
        let values = match &kind {
            Kind::Number { dtype, big } => {
                if *big {
                    swap_bytes(&mut own, entry);
                }
                numbers(*dtype, &own)
            }
            Kind::Half { big } => {
                if *big {
                    swap_bytes(&mut own, entry);
                }
                from_half(&own)
            }
            Kind::Fixed(padding) => Values::Str(own.chunks_exact(entry).map(|b| fixed(b, padding)).collect()),
            _ if entry == REFERENCE => Values::Str(Heaps::new(self.file()).strings(&own, place)?),
            _ => return Ok(None),
        };
        Ok(Some(Array { shape, values }))
    }
}
