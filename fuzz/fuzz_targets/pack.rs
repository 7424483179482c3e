#![no_main]

use cellmill_kernels::pack::{header, pack, unpack, unpack_columns};
use cellmill_matrix::Csr;

// Checksums are not looked at when fuzzing (`cfg(fuzzing)`), so that what lies behind them is reached.
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(head) = header(bytes) else { return };
    let mut rows = Csr::default();
    if unpack(bytes, &mut rows).is_ok() {
        canonical(&rows);
        let mut again = Vec::new();
        pack(&rows, &mut again);
        let mut same = Csr::default();
        unpack(&again, &mut same).unwrap();
        assert_eq!(same.indices, rows.indices);
        assert_eq!(same.indptr, rows.indptr);
    }
    if head.n_cols < 1 << 16 {
        let map: Vec<u32> = (0..head.n_cols as u32).map(|j| if j % 3 == 0 { j / 3 } else { u32::MAX }).collect();
        let kept = (head.n_cols as usize).div_ceil(3);
        if unpack_columns(bytes, &map, kept, &mut rows).is_ok() {
            canonical(&rows);
        }
    }
});

/// Columns of each row increase and lie below the width.
fn canonical(rows: &Csr) {
    assert_eq!(rows.indptr.last().copied().unwrap_or(0), rows.indices.len() as u64);
    assert_eq!(rows.indices.len(), rows.data.len());
    for i in 0..rows.n_rows() {
        let (columns, _) = rows.row(i);
        assert!(columns.windows(2).all(|w| w[0] < w[1]));
        assert!(columns.iter().all(|&c| (c as usize) < rows.n_cols));
    }
}
