//! Copies an AnnData store, matrices by streams and everything else by elements: `copy IN OUT [zarr3|zarr2|h5ad]`.

use std::io::Write;
use std::path::Path;

use cellmill_matrix::{Csr, Error, Result, SourceRow};
use cellmill_store::anndata::AnnData;
use cellmill_store::write::{self, CsrStream, Format};

/// Rows that are read at once.
const ROWS: u64 = 700;

fn copy(from: &Path, to: &Path, format: Format) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    let store = AnnData::open(from)?;
    let writer = write::create(to, format, true)?;
    write::write_root(&*writer)?;
    write::write_table(&*writer, "obs", &store.obs(&mut warnings)?)?;
    write::write_table(&*writer, "var", &store.var(&mut warnings)?)?;
    for matrix in store.matrices()? {
        let info = store.matrix_info(&matrix)?;
        let rows = store.matrix(&matrix)?.into_rows(&std::env::temp_dir(), 64 << 20, &())?;
        if matrix == "raw/X" {
            let mut attrs = cellmill_store::tree::Attrs::new();
            attrs.insert("encoding-type".into(), "raw".into());
            attrs.insert("encoding-version".into(), "0.1.0".into());
            writer.group("raw", attrs)?;
            write::write_table(&*writer, "raw/var", &store.var_of(&matrix, &mut warnings)?)?;
        }
        let mut stream = CsrStream::create(&*writer, &matrix, info.shape.n_obs, info.shape.n_vars)?;
        let mut csr = Csr::default();
        let mut at = 0;
        while at < info.shape.n_obs {
            let end = (at + ROWS).min(info.shape.n_obs);
            rows.read(SourceRow(at)..SourceRow(end), &mut csr)?;
            stream.append(&csr)?;
            at = end;
        }
        stream.finish()?;
        warnings.push(format!("{matrix}: {:?} nnz {} {} {:?}", info.encoding, info.nnz, info.data.codec, info.stored_bytes));
    }
    for group in ["obsm", "varm", "obsp", "varp", "uns"] {
        for name in store.names(group)? {
            let path = format!("{group}/{name}");
            if let Some(element) = store.element(&path, &mut warnings)? {
                write::write_element(&*writer, &path, &element)?;
            }
        }
    }
    writer.finish()?;
    Ok(warnings)
}

fn main() -> std::process::ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let [_, from, to, rest @ ..] = &args[..] else { return std::process::ExitCode::from(2) };
    let format = match rest.first().map(String::as_str) {
        Some("zarr2") => Format::Zarr2,
        Some("h5ad") => Format::H5ad,
        Some("zarr3") => Format::Zarr3,
        _ => Format::of_path(Path::new(to)),
    };
    let mut talk = std::io::stderr().lock();
    let done: Result<Vec<String>, Error> = copy(Path::new(from), Path::new(to), format);
    let status = match done {
        Ok(warnings) => {
            for warning in warnings {
                let _ = writeln!(talk, "{warning}");
            }
            0
        }
        Err(error) => {
            let _ = writeln!(talk, "{error}");
            1
        }
    };
    std::process::ExitCode::from(status)
}
