//! The projection on workers: the chunks that they leave are those of the output, which has the bytes of one process.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use cellmill_matrix::{Csr, Error, Place, Result, Table};
use cellmill_run::cluster::{Dispatcher, Order, Worker, carry_out, leave};
use cellmill_run::device::Choice;
use cellmill_run::job::Job;
use cellmill_run::observe::{Listener, Silence, StageTrace};
use cellmill_run::output::WithX;
use cellmill_run::recipe::{Recipe, Stage};
use cellmill_store::write::{CsrStream, Format, create, write_root, write_table};

const N_OBS: usize = 60_000;
const N_VARS: usize = 90;

/// A process works for one run at a time: an order of another makes it forget the rows, so these tests take turns.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts of 60,000 cells, of which some are seen with few genes, from a fixed sequence.
fn cells(path: &Path) {
    let mut state = 12345u64;
    let mut next = move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as u32
    };
    let writer = create(path, Format::Zarr3, false).unwrap();
    write_root(&*writer).unwrap();
    let names = |n: usize, of: &str| Table::of_index((0..n).map(|i| format!("{of}{i}")).collect());
    write_table(&*writer, "obs", &names(N_OBS, "cell")).unwrap();
    write_table(&*writer, "var", &names(N_VARS, "gene")).unwrap();
    let mut stream = CsrStream::create(&*writer, "X", N_OBS as u64, N_VARS).unwrap();
    for _ in 0..N_OBS / 1000 {
        let mut rows = Csr::empty(N_VARS);
        for _ in 0..1000 {
            let kind = next() % 5;
            let counts = (0..N_VARS as u32).map(|j| (j, (next() % 9).saturating_sub(if j % 5 == kind { 2 } else { 6 })));
            let (columns, values): (Vec<u32>, Vec<f32>) = counts.filter(|c| c.1 > 0).map(|(j, count)| (j, count as f32)).unzip();
            rows.push_row(&columns, &values);
        }
        stream.append(&rows).unwrap();
    }
    stream.finish().unwrap();
    writer.finish().unwrap();
}

fn job(folder: &Path, output: &str, format: Format) -> Job {
    let recipe = "[hvg]\nn_top_genes = 80\n[pca]\nn_comps = 60\n[filter]\ncells = \"n_genes_by_counts >= 26\"";
    Job {
        input: folder.join("cells.zarr"),
        output: folder.join(output),
        format: Some(format),
        overwrite: false,
        in_place: false,
        with_x: None,
        recipe: Recipe::parse(recipe, "recipe").unwrap(),
        through: Stage::Pca,
        threads: 2,
        memory: 1 << 30,
        genome: None,
        spill_dir: None,
        resume: false,
        device: Choice::default(),
    }
}

/// One worker, in this process; orders are carried out last to first, some of them twice.
struct Hands {
    folder: PathBuf,
    /// Orders of the projection after which the client is stopped.
    stop: usize,
    /// Whether the matrix is gone by then, and no order comes twice.
    hide: bool,
    orders: Mutex<Vec<(usize, String, String)>>,
    /// Orders of the projection that were carried out.
    projected: Mutex<usize>,
    /// Files of the journal when the run leaves it: their numbers and lengths.
    left: Mutex<BTreeMap<String, (u64, u64)>>,
}

impl Hands {
    fn new(folder: &Path) -> Self {
        Hands {
            folder: folder.to_path_buf(),
            stop: usize::MAX,
            hide: false,
            orders: Mutex::default(),
            projected: Mutex::default(),
            left: Mutex::default(),
        }
    }
}

impl Dispatcher for Hands {
    fn n_workers(&self) -> Result<usize> {
        Ok(1)
    }
    fn rooms(&self) -> Result<Vec<(String, u64)>> {
        Ok(vec![("one".into(), 1 << 30)])
    }
    fn gpus(&self) -> Result<Vec<(String, Option<String>)>> {
        Ok(vec![("one".into(), Some("there is none".into()))])
    }
    fn submit(&self, orders: &[Order]) -> Result<()> {
        let told = orders.iter().enumerate().map(|(place, order)| (place, order.key.clone(), order.message.clone()));
        *self.orders.lock().unwrap() = told.collect();
        Ok(())
    }
    fn carried_out(&self) -> Result<Vec<usize>> {
        let Some((place, key, message)) = self.orders.lock().unwrap().pop() else { return Ok(Vec::new()) };
        if key.starts_with("projection") {
            let mut projected = self.projected.lock().unwrap();
            if *projected == self.stop {
                return Err(Error::io(Place::store("workers"), &std::io::Error::other("they are gone")));
            }
            *projected += 1;
            let matrix = self.folder.join("cells.zarr/X");
            if self.hide && matrix.exists() {
                std::fs::rename(&matrix, self.folder.join("X")).unwrap();
            }
        }
        let worker = Worker { name: "one".into(), threads: 2, memory: 1 << 30, scratch: self.folder.clone() };
        let times = if self.hide { 1 } else { 1 + place % 2 };
        (0..times).try_for_each(|_| carry_out(&message, &worker))?;
        Ok(vec![place])
    }
    fn cancel(&self) {
        self.orders.lock().unwrap().clear();
    }
    fn leave(&self, run: &str) {
        leave(run);
        let known = |file: &PathBuf| std::fs::metadata(file).map(|meta| (meta.ino(), meta.len())).unwrap();
        *self.left.lock().unwrap() =
            files(&self.folder.join("there.journal")).into_iter().map(|(name, file)| (name, known(&file))).collect();
    }
}

/// Files below a folder, or the file itself, by name.
fn files(at: &Path) -> BTreeMap<String, PathBuf> {
    let mut all = BTreeMap::new();
    let mut waiting = vec![at.to_path_buf()];
    while let Some(path) = waiting.pop() {
        match path.is_dir() {
            true => waiting.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path())),
            false => drop(all.insert(path.strip_prefix(at).unwrap().display().to_string(), path)),
        }
    }
    all
}

/// Whether two outputs have the same bytes.
fn same(folder: &Path) {
    let read = |name: &str| files(&folder.join(name)).into_iter().map(|(name, file)| (name, std::fs::read(file).unwrap()));
    let (here, there): (BTreeMap<_, _>, BTreeMap<_, _>) = (read("here").collect(), read("there").collect());
    assert!(here.keys().eq(there.keys()));
    assert_eq!(
        here.iter().filter(|(name, bytes)| there[*name] != **bytes).map(|(name, _)| name).collect::<Vec<_>>(),
        Vec::<&String>::new()
    );
}

fn run(job: &Job, hands: Option<&Hands>) -> Result<usize> {
    job.run_with(hands.map(|hands| hands as &dyn Dispatcher), &Silence).map(|summary| summary.kept[0] as usize)
}

#[test]
fn chunks_of_the_scores_go_from_the_workers_into_the_output() {
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    cells(&dir.path().join("cells.zarr"));
    for format in [Format::Zarr3, Format::Zarr2, Format::H5ad] {
        let n = run(&job(dir.path(), "here", format), None).unwrap();
        assert!((35_000..55_000).contains(&n), "some cells are left out: {n}");
        let hands = Hands::new(dir.path());
        run(&job(dir.path(), "there", format), Some(&hands)).unwrap();
        same(dir.path());
        let left = hands.left.lock().unwrap();
        let chunks: Vec<_> = left.iter().filter(|(name, _)| name.contains("-chunks/")).collect();
        if format == Format::H5ad {
            assert!(chunks.is_empty());
            std::fs::remove_file(dir.path().join("here")).unwrap();
            std::fs::remove_file(dir.path().join("there")).unwrap();
            continue;
        }
        // What lies in the output are the workers' files themselves, each of them; and no record has room for scores.
        let mut own: Vec<u64> = chunks.iter().map(|(_, known)| known.0).collect();
        let scores = files(&dir.path().join("there/obsm/X_pca"));
        let taken = scores.iter().filter(|(name, _)| !name.contains("zarr") && !name.starts_with(".z"));
        let mut taken: Vec<u64> = taken.map(|(_, file)| std::fs::metadata(file).unwrap().ino()).collect();
        own.sort();
        taken.sort();
        assert_eq!(own, taken);
        assert!(own.len() > 4, "several chunks, which end where no task does");
        let records: Vec<_> = left.iter().filter(|(name, _)| name.starts_with("projection") && name.matches('-').count() == 3).collect();
        assert_eq!(records.len(), *hands.projected.lock().unwrap());
        assert!(records.iter().all(|(_, known)| known.1 < 200), "{records:?}");
        assert!(!left.contains_key("scores"));
        std::fs::remove_dir_all(dir.path().join("here")).unwrap();
        std::fs::remove_dir_all(dir.path().join("there")).unwrap();
    }
}

#[test]
fn a_projection_that_was_stopped_goes_on() {
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    cells(&dir.path().join("cells.zarr"));
    run(&job(dir.path(), "here", Format::Zarr3), None).unwrap();
    let stopped = Hands { stop: 2, ..Hands::new(dir.path()) };
    run(&job(dir.path(), "there", Format::Zarr3), Some(&stopped)).unwrap_err();
    let journal = files(&dir.path().join("there.journal"));
    let chunk = journal.iter().find(|(name, _)| name.contains("-chunks/")).unwrap().1;
    let mut bytes = std::fs::read(chunk).unwrap();
    bytes[100] ^= 1;
    std::fs::write(chunk, bytes).unwrap();
    assert!(!dir.path().join("there").exists());
    // One was lacking, and one is damaged.
    let hands = Hands::new(dir.path());
    let again = Job { resume: true, ..job(dir.path(), "there", Format::Zarr3) };
    run(&again, Some(&hands)).unwrap();
    assert_eq!(*hands.projected.lock().unwrap(), 2);
    same(dir.path());
}

#[test]
fn tasks_that_two_orders_project_are_not_decoded_again() {
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    cells(&dir.path().join("cells.zarr"));
    run(&job(dir.path(), "here", Format::Zarr3), None).unwrap();
    let hands = Hands { hide: true, ..Hands::new(dir.path()) };
    run(&job(dir.path(), "there", Format::Zarr3), Some(&hands)).unwrap();
    assert!(dir.path().join("X").exists() && *hands.projected.lock().unwrap() > 1);
    same(dir.path());
}

#[test]
fn orders_of_another_version_are_refused() {
    let worker = Worker { name: "one".into(), threads: 1, memory: 1 << 30, scratch: PathBuf::new() };
    for (order, says) in
        [(r#"{"version": "9.9.9", "journal": "j", "anything": [1]}"#, "version 9.9.9"), (r#"{"journal": "j"}"#, "version unknown")]
    {
        let error = carry_out(order, &worker).unwrap_err().to_string();
        assert!(error.contains("worker one") && error.contains(says) && error.contains(env!("CARGO_PKG_VERSION")), "{error}");
    }
}

/// Stops a run as soon as it writes.
#[derive(Default)]
struct Hasty(AtomicBool);

impl Listener for Hasty {
    fn begin(&self, stage: &str, _: &str) {
        self.0.store(stage == "writing", Ordering::Relaxed);
    }
    fn progress(&self, _: u64, _: u64, _: &str) {}
    fn end(&self, _: &StageTrace) {}
    fn warn(&self, _: &str) {}
    fn stopped(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

#[test]
fn chunks_are_of_use_when_there_are_no_workers_any_more() {
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    cells(&dir.path().join("cells.zarr"));
    let job = |output: &str| Job { with_x: Some(WithX::Raw), ..job(dir.path(), output, Format::Zarr2) };
    run(&job("here"), None).unwrap();
    let hands = Hands::new(dir.path());
    job("there").run_with(Some(&hands), &Hasty::default()).unwrap_err();
    assert!(!dir.path().join("there").exists());
    let summary = Job { resume: true, ..job("there") }.run(&Silence).unwrap();
    let components = summary.stages.iter().find(|stage| stage.stage == "principal components").unwrap();
    assert_eq!(components.source_reads, 0);
    same(dir.path());
}
