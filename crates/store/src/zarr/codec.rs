//! The codecs of a chunk, decoded into memory that is used again.

use std::cell::RefCell;

use super::blosc;

/// One step between the entries of a chunk and the bytes of its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Codec {
    Blosc,
    Zstd,
    Gzip,
    Zlib,
    Lz4,
    Crc32c,
}

/// The steps in the order of encoding.
#[derive(Clone, Debug)]
pub(crate) struct Chain {
    pub codecs: Vec<Codec>,
    /// Bytes of the unit whose bytes are stored in reverse (big endian); 1 for none.
    pub swap: usize,
}

/// No codec here makes more than so many bytes of one (zstd's runs come nearest); a longer promise is a lie.
pub(crate) const MOST_EXPANSION: u64 = 1 << 17;

/// What one thread keeps between chunks.
#[derive(Default)]
struct Tools {
    zstd: Option<zstd::bulk::Decompressor<'static>>,
    deflate: Option<libdeflater::Decompressor>,
    block: Vec<u8>,
    steps: [Vec<u8>; 2],
}

thread_local! {
    static TOOLS: RefCell<Tools> = RefCell::new(Tools::default());
}

/// Whether `len` bytes can come out of `stored` bytes.
pub(crate) fn plausible(len: u64, stored: u64) -> bool {
    len <= (stored + 64).saturating_mul(MOST_EXPANSION)
}

impl Chain {
    /// Decodes a chunk whose entries take exactly `out.len()` bytes.
    pub fn decode_exact(&self, stored: &[u8], out: &mut [u8]) -> Result<(), String> {
        TOOLS.with_borrow_mut(|tools| {
            let Tools { zstd, deflate, block, steps } = tools;
            let mut decoders = Decoders { zstd, deflate, block };
            match self.codecs.split_first() {
                None => copy(stored, out)?,
                Some((Codec::Crc32c, rest)) => copy(checked(decoders.steps(rest, stored, steps)?)?, out)?,
                Some((first, rest)) => {
                    let stored = decoders.steps(rest, stored, steps)?;
                    decoders.exact(*first, stored, out)?;
                }
            }
            reverse(out, self.swap);
            Ok(())
        })
    }

    /// Decodes a chunk of unknown length.
    pub fn decode_any(&self, stored: &[u8]) -> Result<Vec<u8>, String> {
        TOOLS.with_borrow_mut(|tools| {
            let Tools { zstd, deflate, block, steps } = tools;
            let mut decoders = Decoders { zstd, deflate, block };
            let mut out = decoders.steps(&self.codecs, stored, steps)?.to_vec();
            reverse(&mut out, self.swap);
            Ok(out)
        })
    }
}

fn copy(from: &[u8], to: &mut [u8]) -> Result<(), String> {
    if from.len() != to.len() {
        return Err(format!("{} bytes where {} are due", from.len(), to.len()));
    }
    to.copy_from_slice(from);
    Ok(())
}

/// Strips a CRC-32C after checking it.
pub(crate) fn checked(bytes: &[u8]) -> Result<&[u8], String> {
    let (body, sum) = bytes.split_last_chunk::<4>().ok_or("no room for a checksum")?;
    if crc32c::crc32c(body) != u32::from_le_bytes(*sum) {
        return Err("the checksum does not fit".into());
    }
    Ok(body)
}

/// Turns the bytes of each unit round.
fn reverse(out: &mut [u8], unit: usize) {
    if unit > 1 {
        out.chunks_exact_mut(unit).for_each(<[u8]>::reverse);
    }
}

struct Decoders<'a> {
    zstd: &'a mut Option<zstd::bulk::Decompressor<'static>>,
    deflate: &'a mut Option<libdeflater::Decompressor>,
    block: &'a mut Vec<u8>,
}

impl Decoders<'_> {
    /// Undoes these codecs, the last first, between two buffers.
    fn steps<'b>(&mut self, codecs: &[Codec], stored: &'b [u8], buffers: &'b mut [Vec<u8>; 2]) -> Result<&'b [u8], String> {
        let [here, there] = buffers;
        let (mut from, mut to): (&mut Vec<u8>, &mut Vec<u8>) = (here, there);
        let mut begun = false;
        let mut trimmed = stored.len();
        for codec in codecs.iter().rev() {
            let input: &[u8] = if begun { &from[..trimmed] } else { &stored[..trimmed] };
            if *codec == Codec::Crc32c {
                trimmed = checked(input)?.len();
                continue;
            }
            let len = self.promised(*codec, input)?;
            match len {
                Some(len) => {
                    if !plausible(len, input.len() as u64) {
                        return Err(format!("{} bytes claim to be {len}", input.len()));
                    }
                    to.resize(len as usize, 0);
                    self.exact(*codec, input, to)?;
                }
                None => self.growing(*codec, input, to)?,
            }
            trimmed = to.len();
            std::mem::swap(&mut from, &mut to);
            begun = true;
        }
        Ok(if begun { &from[..trimmed] } else { &stored[..trimmed] })
    }

    /// The length that the compressed bytes promise themselves.
    fn promised(&self, codec: Codec, input: &[u8]) -> Result<Option<u64>, String> {
        match codec {
            Codec::Blosc => blosc::decoded_len(input).map(|n| Some(n as u64)),
            Codec::Lz4 => lz4_parts(input).map(|(n, _)| Some(n as u64)),
            Codec::Zstd => zstd::zstd_safe::get_frame_content_size(input).map_err(|_| "not a zstd frame".into()),
            Codec::Gzip | Codec::Zlib | Codec::Crc32c => Ok(None),
        }
    }

    fn exact(&mut self, codec: Codec, input: &[u8], out: &mut [u8]) -> Result<(), String> {
        let len = match codec {
            Codec::Blosc => return blosc::decode(input, out, self.block),
            Codec::Lz4 => {
                let (len, body) = lz4_parts(input)?;
                if len != out.len() {
                    return Err(format!("{len} bytes where {} are due", out.len()));
                }
                return blosc::lz4(body, out);
            }
            Codec::Zstd => {
                let tool = match self.zstd.take() {
                    Some(tool) => tool,
                    None => zstd::bulk::Decompressor::new().map_err(|e| e.to_string())?,
                };
                let tool = self.zstd.insert(tool);
                tool.decompress_to_buffer(input, out).map_err(|e| format!("zstd: {e}"))?
            }
            Codec::Gzip => self.deflate().gzip_decompress(input, out).map_err(|e| format!("gzip: {e}"))?,
            Codec::Zlib => self.deflate().zlib_decompress(input, out).map_err(|e| format!("zlib: {e}"))?,
            Codec::Crc32c => return copy(checked(input)?, out),
        };
        if len != out.len() {
            return Err(format!("{len} bytes where {} are due", out.len()));
        }
        Ok(())
    }

    fn deflate(&mut self) -> &mut libdeflater::Decompressor {
        self.deflate.get_or_insert_with(libdeflater::Decompressor::new)
    }

    /// Decodes what does not say its length.
    fn growing(&mut self, codec: Codec, input: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        use std::io::Read;
        out.clear();
        let limit = (input.len() as u64 + 64).saturating_mul(MOST_EXPANSION);
        let read = match codec {
            Codec::Zstd => zstd::stream::read::Decoder::new(input).and_then(|d| d.take(limit).read_to_end(out)),
            Codec::Gzip => flate2::read::MultiGzDecoder::new(input).take(limit).read_to_end(out),
            _ => flate2::read::ZlibDecoder::new(input).take(limit).read_to_end(out),
        };
        read.map(|_| ()).map_err(|e| e.to_string())
    }
}

/// numcodecs' lz4: the length in four bytes, then a block.
fn lz4_parts(input: &[u8]) -> Result<(usize, &[u8]), String> {
    let (len, body) = input.split_first_chunk::<4>().ok_or("lz4: no length")?;
    Ok((u32::from_le_bytes(*len) as usize, body))
}
