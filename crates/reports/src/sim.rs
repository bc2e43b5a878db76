//! A disk in memory that keeps a record of what was done to it, can fail at any step, and can be brought into every state that
//! a loss of power may leave: writes lost, kept or torn, lengths before data or after it, names lost or kept.
//!
//! The rules are those of POSIX, not of one file system: only `sync` and `sync_folder` make anything durable.

use crate::disk::{Appender, Disk};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A file's identity, which it keeps when it is renamed.
type Node = usize;

/// One thing done to the disk.
#[derive(Clone, Debug)]
enum Step {
    CreateFolder(PathBuf),
    Create(PathBuf, Node),
    Append(Node, Arc<[u8]>),
    Cut(Node, usize),
    Sync(Node),
    Rename(PathBuf, PathBuf, Node),
    Remove(PathBuf),
    SyncFolder(PathBuf),
}

/// What an armed disk does at its step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The step fails once; half of an append is there.
    Once(io::ErrorKind),
    /// That step and all later ones fail.
    ForEver(io::ErrorKind),
}

#[derive(Default)]
struct State {
    names: BTreeMap<PathBuf, Node>,
    folders: BTreeSet<PathBuf>,
    files: HashMap<Node, Vec<u8>>,
    next_node: Node,
    steps: Vec<Step>,
    /// Steps at the beginning that only made the disk what it was.
    given: usize,
    fault: Option<(usize, Fault)>,
}

/// The disk; its clones are the same disk.
#[derive(Clone, Default)]
pub struct SimDisk(Arc<Mutex<State>>);

/// A source of choices, so that a state can be made again from its seed.
#[derive(Clone, Debug)]
pub struct Choices(u64);

impl Choices {
    /// The same seed gives the same choices.
    pub fn new(seed: u64) -> Choices {
        Choices(seed)
    }

    /// A number below `bound`, which is not 0. (splitmix64, <https://prng.di.unimi.it/splitmix64.c>.)
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) % bound
    }

    fn flip(&mut self) -> bool {
        self.below(2) == 0
    }
}

impl SimDisk {
    /// Steps taken so far.
    pub fn steps(&self) -> usize {
        self.state().steps.len()
    }

    /// Makes the disk fail `after` further steps from now.
    pub fn arm(&self, after: usize, fault: Fault) {
        let mut state = self.state();
        state.fault = Some((state.steps.len() + after, fault));
    }

    /// Lets the disk work again.
    pub fn disarm(&self) {
        self.state().fault = None;
    }

    /// All files with their content, for comparison.
    pub fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let state = self.state();
        state.names.iter().map(|(path, node)| (path.clone(), state.files[node].clone())).collect()
    }

    /// Replaces a file's content, as rot or a person would; not recorded as a step.
    pub fn overwrite(&self, path: &Path, content: Vec<u8>) {
        let mut state = self.state();
        let node = *state.names.entry(path.to_owned()).or_insert(usize::MAX);
        let node = if node == usize::MAX { state.new_node(path) } else { node };
        state.files.insert(node, content);
    }

    /// Takes a file away behind everyone's back; not recorded as a step.
    pub fn lose(&self, path: &Path) {
        self.state().names.remove(path);
    }

    /// A disk as the power going off after `steps` steps could leave it. The choices decide which of the legal ways.
    pub fn crash(&self, steps: usize, choices: &mut Choices) -> SimDisk {
        let state = self.state();
        let done = &state.steps[..steps.max(state.given)];
        let (names, folders) = names_after(done, choices);
        let mut files = HashMap::new();
        for node in names.values() {
            files.entry(*node).or_insert_with(|| content_after(done, *node, choices));
        }
        let mut steps = Vec::new();
        // What survived is durable from now on: the new disk's record begins with it, all of it synced.
        for folder in &folders {
            steps.push(Step::CreateFolder(folder.clone()));
        }
        for (path, node) in &names {
            steps.push(Step::Create(path.clone(), *node));
        }
        for (node, content) in &files {
            steps.push(Step::Append(*node, content.as_slice().into()));
            steps.push(Step::Sync(*node));
        }
        let parents: BTreeSet<&Path> = names.keys().chain(&folders).filter_map(|path| path.parent()).collect();
        steps.extend(parents.into_iter().map(|folder| Step::SyncFolder(folder.to_owned())));
        let next_node = state.next_node;
        SimDisk(Arc::new(Mutex::new(State { names, folders, files, next_node, given: steps.len(), steps, fault: None })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a step, or fails where it is time to.
    fn take(&self, step: Step) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        let now = state.steps.len();
        let failing = match state.fault {
            Some((at, Fault::Once(kind))) if at == now => {
                state.fault = None;
                Some(kind)
            }
            Some((at, Fault::ForEver(kind))) if at <= now => Some(kind),
            _ => None,
        };
        let Some(kind) = failing else {
            state.steps.push(step);
            return Ok(state);
        };
        if let Step::Append(node, bytes) = step {
            let half: Arc<[u8]> = bytes[..bytes.len() / 2].into();
            state.files.get_mut(&node).expect("an open file").extend_from_slice(&half);
            state.steps.push(Step::Append(node, half));
        }
        Err(kind.into())
    }
}

/// A call of a disk that a test is told of before it is done.
#[derive(Clone, Debug)]
pub enum Call<'a> {
    /// A file is to be made.
    Create(&'a Path),
    /// A part of a file is to be read.
    ReadAt(&'a Path, Range<u64>),
    /// It is told what of a file will be read; what is said against it goes unheard.
    WillRead(&'a Path, &'a [Range<u64>]),
}

/// A disk in memory with something before it that may keep a call waiting, or refuse it.
pub struct Guarded<F> {
    disk: SimDisk,
    before: F,
}

impl SimDisk {
    /// The same disk with something before it.
    pub fn guarded<F: Fn(Call<'_>) -> io::Result<()> + Send + Sync>(&self, before: F) -> Guarded<F> {
        Guarded { disk: self.clone(), before }
    }
}

impl<F: Fn(Call<'_>) -> io::Result<()> + Send + Sync> Disk for Guarded<F> {
    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        self.disk.create_folder(folder)
    }
    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        self.disk.list(folder)
    }
    fn create(&self, path: &Path) -> io::Result<Box<dyn Appender>> {
        (self.before)(Call::Create(path))?;
        self.disk.create(path)
    }
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.disk.read(path)
    }
    fn read_at(&self, path: &Path, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        (self.before)(Call::ReadAt(path, offset..offset + length as u64))?;
        self.disk.read_at(path, offset, length)
    }
    fn will_read(&self, path: &Path, parts: &[Range<u64>]) {
        let _ = (self.before)(Call::WillRead(path, parts));
    }
    fn length(&self, path: &Path) -> io::Result<Option<u64>> {
        self.disk.length(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }
    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.disk.sync_folder(folder)
    }
}

impl State {
    fn new_node(&mut self, path: &Path) -> Node {
        self.next_node += 1;
        self.names.insert(path.to_owned(), self.next_node);
        self.files.insert(self.next_node, Vec::new());
        self.next_node
    }

    fn node(&self, path: &Path) -> io::Result<Node> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// Which names are there after a crash. Of what was done in a folder since its last sync, anything may have been lost, but
/// what was done to one name is lost from the end.
fn names_after(done: &[Step], choices: &mut Choices) -> (BTreeMap<PathBuf, Node>, BTreeSet<PathBuf>) {
    let mut synced_at: HashMap<&Path, usize> = HashMap::new();
    for (at, step) in done.iter().enumerate() {
        if let Step::SyncFolder(folder) = step {
            synced_at.insert(folder, at);
        }
    }
    let durable = |path: &Path, at: usize| path.parent().is_none_or(|folder| synced_at.get(folder).is_some_and(|synced| *synced > at));
    // Nothing lost, everything lost, lost from one point on, or each by itself.
    let (manner, point) = (choices.below(4), choices.below(done.len() as u64 + 1) as usize);
    let kept = |path: &Path, at: usize, choices: &mut Choices| {
        durable(path, at)
            || match manner {
                0 => true,
                1 => false,
                2 => at < point,
                _ => choices.flip(),
            }
    };
    let (mut names, mut folders) = (BTreeMap::new(), BTreeSet::new());
    for (at, step) in done.iter().enumerate() {
        match step {
            Step::CreateFolder(folder) => {
                if kept(folder, at, choices) {
                    folders.insert(folder.clone());
                }
            }
            Step::Create(path, node) => {
                if kept(path, at, choices) {
                    names.insert(path.clone(), *node);
                }
            }
            Step::Rename(from, to, node) => {
                if from.parent() == to.parent() {
                    if kept(to, at, choices) {
                        names.remove(from);
                        names.insert(to.clone(), *node);
                    }
                    continue;
                }
                let added = kept(to, at, choices);
                if added {
                    names.insert(to.clone(), *node);
                }
                // A file system that moves between folders loses neither name before it has the other.
                if added && kept(from, at, choices) {
                    names.remove(from);
                }
            }
            Step::Remove(path) => {
                if kept(path, at, choices) {
                    names.remove(path);
                }
            }
            Step::Append(..) | Step::Cut(..) | Step::Sync(_) | Step::SyncFolder(_) => {}
        }
    }
    // What is in a folder that is gone is gone.
    let reachable = |path: &Path| path.ancestors().skip(1).all(|folder| folder.parent().is_none() || folders.contains(folder));
    names.retain(|path, _| reachable(path));
    let folders = folders.iter().filter(|folder| reachable(folder)).cloned().collect();
    (names, folders)
}

/// A file's content after a crash: what was synced, and of the rest any sectors of any length.
fn content_after(done: &[Step], node: Node, choices: &mut Choices) -> Vec<u8> {
    let mut content: Vec<u8> = Vec::new();
    let mut synced = Vec::new();
    let mut ends = Vec::new();
    for step in done {
        match step {
            Step::Append(to, bytes) if *to == node => {
                content.extend_from_slice(bytes);
                ends.push(content.len());
            }
            Step::Cut(of, length) if *of == node => content.truncate(*length),
            Step::Sync(of) if *of == node => {
                synced.clone_from(&content);
                ends.clear();
            }
            _ => {}
        }
    }
    let common = synced.iter().zip(&content).take_while(|(a, b)| a == b).count();
    if common < synced.len() {
        // Synced bytes were cut off or replaced and this is not synced yet: one state or the other.
        return if choices.flip() { synced } else { content };
    }
    if content.len() == synced.len() {
        return synced;
    }
    let sector = if choices.flip() { 512 } else { 4_096 };
    let first_sector = synced.len() / sector;
    let sectors = content.len().div_ceil(sector) - first_sector;
    let length = match choices.below(4) {
        0 => content.len(),
        1 => synced.len(),
        2 => ends[choices.below(ends.len() as u64) as usize].clamp(synced.len(), content.len()),
        _ => ((first_sector + choices.below(sectors as u64 + 1) as usize) * sector).clamp(synced.len(), content.len()),
    };
    let (manner, point) = (choices.below(4), choices.below(sectors as u64 + 1) as usize);
    let mut after = content[..length].to_vec();
    for at in 0..sectors {
        let written = match manner {
            0 => true,
            1 => false,
            2 => at < point,
            _ => choices.flip(),
        };
        if !written {
            // The length came before the data: a sector never written reads as zeros.
            let from = ((first_sector + at) * sector).max(synced.len()).min(length);
            let to = ((first_sector + at + 1) * sector).min(length);
            after[from..to].fill(0);
        }
    }
    after
}

impl Disk for SimDisk {
    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        let missing: Vec<&Path> = {
            let state = self.state();
            folder.ancestors().take_while(|above| above.parent().is_some() && !state.folders.contains(*above)).collect()
        };
        for missing in missing.into_iter().rev() {
            self.take(Step::CreateFolder(missing.to_owned()))?.folders.insert(missing.to_owned());
            self.sync_folder(missing.parent().expect("the root is never missing"))?;
        }
        folder.parent().map_or(Ok(()), |parent| self.sync_folder(parent))
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        if folder.parent().is_some() && !state.folders.contains(folder) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inside = state.names.keys().chain(&state.folders).filter(|path| path.parent() == Some(folder));
        Ok(inside.filter_map(|path| path.file_name()).map(|name| name.to_string_lossy().into_owned()).collect())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn Appender>> {
        {
            let state = self.state();
            if state.names.contains_key(path) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            if path.parent().is_some_and(|folder| folder.parent().is_some() && !state.folders.contains(folder)) {
                return Err(io::ErrorKind::NotFound.into());
            }
        }
        let next = self.state().next_node + 1;
        let node = self.take(Step::Create(path.to_owned(), next))?.new_node(path);
        Ok(Box::new(SimFile { disk: self.clone(), node }))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let state = self.state();
        Ok(state.files[&state.node(path)?].clone())
    }

    fn read_at(&self, path: &Path, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let state = self.state();
        let content = &state.files[&state.node(path)?];
        let from = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        content.get(from..from.saturating_add(length)).map(<[u8]>::to_vec).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    fn length(&self, path: &Path) -> io::Result<Option<u64>> {
        let state = self.state();
        Ok(state.names.get(path).map(|node| state.files[node].len() as u64))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let node = self.state().node(from)?;
        let mut state = self.take(Step::Rename(from.to_owned(), to.to_owned(), node))?;
        state.names.remove(from);
        state.names.insert(to.to_owned(), node);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.state().node(path)?;
        self.take(Step::Remove(path.to_owned()))?.names.remove(path);
        Ok(())
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.take(Step::SyncFolder(folder.to_owned())).map(drop)
    }
}

struct SimFile {
    disk: SimDisk,
    node: Node,
}

impl Appender for SimFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.take(Step::Append(self.node, bytes.into()))?;
        state.files.get_mut(&self.node).expect("an open file").extend_from_slice(bytes);
        Ok(())
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        let length = usize::try_from(length).map_err(|_| io::ErrorKind::InvalidInput)?;
        self.disk.take(Step::Cut(self.node, length))?.files.get_mut(&self.node).expect("an open file").truncate(length);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.disk.take(Step::Sync(self.node)).map(drop)
    }
}
