//! What an array takes on disk, without reading it.

use super::metadata::Layout;
use crate::element::join;
use crate::objects::Objects;

/// Bytes of an array's objects. Beyond `most` of them: those of `most` objects evenly spread, scaled up.
pub(crate) fn stored_bytes(objects: &dyn Objects, path: &str, layout: &Layout, most: u64) -> std::io::Result<u64> {
    let (names, all) = sample(path, layout, most);
    let sum: u64 = objects.sizes(&names)?.into_iter().flatten().sum();
    let asked = names.len() as u64;
    Ok(if asked == all { sum } else { (sum as f64 * all as f64 / asked as f64) as u64 })
}

/// Names of at most `most` objects of an array, evenly spread, and how many there can be.
pub(crate) fn sample(path: &str, layout: &Layout, most: u64) -> (Vec<String>, u64) {
    let files = layout.info.shard.as_ref().unwrap_or(&layout.info.chunk);
    let grid: Vec<u64> = layout.info.shape.iter().zip(files).map(|(n, c)| n.div_ceil(*c)).collect();
    let all: u64 = grid.iter().product();
    let asked = all.min(most);
    let name = |k: u64| {
        let mut i = (u128::from(k) * u128::from(all) / u128::from(asked.max(1))) as u64;
        let mut at = vec![0; grid.len()];
        for (place, n) in at.iter_mut().zip(&grid).rev() {
            *place = i % n;
            i /= n;
        }
        join(path, &layout.keys.key(&at))
    };
    ((0..asked).map(name).collect(), all)
}
