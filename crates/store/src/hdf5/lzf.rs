//! LZF, the compression of h5py's `compression="lzf"`.

/// Decompresses `src` into `out`, whose length is the length expected. `None` where the bytes are damaged.
///
/// A control byte below 32 starts a run of `control + 1` literals; otherwise its upper three bits (and a byte more where they
/// are 7) are a length less two, its lower five and the next byte a distance less one (LibLZF 3.6, `lzf_d.c`).
pub(super) fn decode(src: &[u8], out: &mut [u8]) -> Option<()> {
    let (mut at, mut to) = (0usize, 0usize);
    while at < src.len() {
        let control = usize::from(src[at]);
        at += 1;
        if control < 32 {
            let run = control + 1;
            out.get_mut(to..to + run)?.copy_from_slice(src.get(at..at + run)?);
            at += run;
            to += run;
        } else {
            let mut len = control >> 5;
            if len == 7 {
                len += usize::from(*src.get(at)?);
                at += 1;
            }
            len += 2;
            let distance = ((control & 31) << 8) + usize::from(*src.get(at)?) + 1;
            at += 1;
            let from = to.checked_sub(distance)?;
            if to + len > out.len() {
                return None;
            }
            if distance >= len {
                out.copy_within(from..from + len, to);
            } else {
                for k in 0..len {
                    out[to + k] = out[from + k];
                }
            }
            to += len;
        }
    }
    (to == out.len()).then_some(())
}
