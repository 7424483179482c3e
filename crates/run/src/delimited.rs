//! Tables as text: comma- or tab-separated values with a header.

use std::fmt::{Display, LowerExp, Write as _};
use std::io::Write;
use std::ops::Range;
use std::path::Path;

use cellmill_matrix::{Column, Error, Place, Result, Table, Values};
use rayon::prelude::*;

/// What stands between the values of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delimiter {
    /// CSV.
    Comma,
    /// TSV.
    Tab,
}

impl Delimiter {
    /// The delimiter that a name asks for; `None` for other names.
    pub fn of_path(path: &Path) -> Option<Delimiter> {
        match path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase).as_deref() {
            Some("csv") => Some(Delimiter::Comma),
            Some("tsv" | "txt" | "tab") => Some(Delimiter::Tab),
            _ => None,
        }
    }
}

/// Writes the columns of a table; its index only if it has a name. The file appears whole or not at all.
pub fn save(table: &Table, path: &Path, delimiter: Delimiter) -> Result<()> {
    let place = Place::store(path.display().to_string());
    let io = |e: std::io::Error| Error::io(place.clone(), &e);
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(io)?;
    {
        let mut out = std::io::BufWriter::new(file.as_file_mut());
        write(table, &mut out, delimiter).and_then(|()| out.flush()).map_err(io)?;
    }
    // A temporary file is its owner's alone; an output is as readable as other files.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644)).map_err(io)?;
    }
    file.persist(path).map_err(|e| io(e.error))?;
    Ok(())
}

fn write(table: &Table, out: &mut dyn Write, delimiter: Delimiter) -> std::io::Result<()> {
    let between = match delimiter {
        Delimiter::Comma => ",",
        Delimiter::Tab => "\t",
    };
    let indexed = table.index_name != "_index";
    let mut header: Vec<String> = if indexed { vec![quoted(&table.index_name, between)] } else { Vec::new() };
    header.extend(table.names().map(|n| quoted(n, between)));
    writeln!(out, "{}", header.join(between))?;
    // Numbers are turned into text by all threads, some lines at a time.
    let starts: Vec<usize> = (0..table.n_rows()).step_by(LINES).collect();
    for starts in starts.chunks(2 * rayon::current_num_threads()) {
        let some = |&start: &usize| lines(table, start..(start + LINES).min(table.n_rows()), between, indexed);
        let texts: Vec<String> = starts.par_iter().map(some).collect();
        texts.iter().try_for_each(|text| out.write_all(text.as_bytes()))?;
    }
    Ok(())
}

/// Lines that one thread writes at a time.
const LINES: usize = 1 << 11;

/// Some rows as lines.
fn lines(table: &Table, rows: Range<usize>, between: &str, indexed: bool) -> String {
    let mut out = String::new();
    for i in rows {
        if indexed {
            out.push_str(&quoted(&table.index[i], between));
        }
        for (at, (_, column)) in table.columns.iter().enumerate() {
            out.push_str(if at > 0 || indexed { between } else { "" });
            match column {
                Column::Plain(Values::F32(v)) => number(&mut out, f64::from(v[i]), v[i]),
                Column::Plain(Values::F64(v)) => number(&mut out, v[i], v[i]),
                // Empty where it is missing.
                other => out.push_str(&quoted(&other.text(i).unwrap_or_default(), between)),
            }
        }
        out.push('\n');
    }
    out
}

/// A number with all of its digits, with an exponent where it is far from 1; nothing for NaN.
fn number(out: &mut String, x: f64, digits: impl Display + LowerExp) {
    let plain = x == 0.0 || (1e-4..1e16).contains(&x.abs()) || x.is_infinite();
    // A string takes all that is written to it.
    let _ = match plain {
        _ if x.is_nan() => Ok(()),
        true => write!(out, "{digits}"),
        false => write!(out, "{digits:e}"),
    };
}

/// RFC 4180: quoted where it holds a delimiter, a quote or a line's end.
fn quoted(text: &str, between: &str) -> String {
    if text.contains(between) || text.contains(['"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_read_back() {
        let mut table = Table::of_index(vec!["0".into(), "1".into()]);
        table.set("name", Column::Plain(Values::Str(vec!["a,b".into(), "say \"c\"".into()])));
        table.set("p", Column::Plain(Values::F64(vec![1.5e-300, f64::NAN])));
        table.set("x", Column::Plain(Values::F32(vec![0.1, f32::INFINITY])));
        let mut out = Vec::new();
        write(&table, &mut out, Delimiter::Comma).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "name,p,x\n\"a,b\",1.5e-300,0.1\n\"say \"\"c\"\"\",,inf\n");
    }
}
