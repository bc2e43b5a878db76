//! Reads files: whole columns as blocks for the evaluator, or reports as they were stored.

use super::checked::Source;
use super::group::ListedFile;
use super::schema::{ATTACHMENTS, Kind, MORE, OUTLINE, Part, RAW, STAMP, TX, UUID, parts};
use super::{FORM, FORM_NOW, MORE_NAMES, PROJECT, damaged, disk_error, outline, pages};
use crate::codec::StoredReport;
use crate::disk::Disk;
#[cfg(test)]
use ::parquet::column::page::Page;
use ::parquet::column::page::PageReader;
use ::parquet::column::reader::ColumnReaderImpl;
use ::parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, DoubleType, FixedLenByteArrayType, Int64Type};
use ::parquet::errors::{ParquetError, Result as ParquetResult};
use ::parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use ::parquet::file::page_index::index_reader::decode_offset_index;
use ::parquet::file::serialized_reader::SerializedPageReader;
use ::parquet::file::statistics::Statistics;
use columns::{Bits, Block, Column, Dictionaries, Dictionary, MISSING, Needed, Present};
use model::{Attachment, Attributes, ProjectId, Report, ReportId, Stamp, Tx, Value};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// Reports read at once when all are asked for.
const BATCH: usize = 512;

/// Columns of a row group, by attribute.
pub(crate) type Columns = BTreeMap<String, Arc<Column>>;

/// A file whose footer has been read.
pub(crate) struct File {
    source: Source,
    metadata: ParquetMetaData,
    project: ProjectId,
    has_outlines: bool,
    /// The columns of attributes with their places.
    parts: Vec<(usize, Part)>,
    /// Which attributes have values in `_more`, and how many.
    more: BTreeMap<String, u64>,
}

impl File {
    /// Opens a file; reads only its footer.
    pub(crate) fn open(disk: Arc<dyn Disk>, path: &Path) -> io::Result<File> {
        let (source, footer) = Source::open(disk, path)?;
        let metadata = ParquetMetaDataReader::decode_metadata(&footer).map_err(disk_error)?;
        let note = |key: &str| {
            let notes = metadata.file_metadata().key_value_metadata()?;
            notes.iter().find(|note| note.key == key)?.value.as_deref()
        };
        let form = note(FORM).map_or(Some(1), |form| form.parse().ok()).ok_or_else(|| damaged("it does not tell its form"))?;
        if form > FORM_NOW {
            let newer = format!("the file is of form {form}, and this version reads forms up to {FORM_NOW}: use the version that wrote it");
            return Err(io::Error::new(io::ErrorKind::Unsupported, newer));
        }
        let has_outlines = form > 1;
        let parts = parts(metadata.file_metadata().schema_descr(), has_outlines)?;
        let project = note(PROJECT).and_then(|text| text.parse().ok()).map(ProjectId).ok_or_else(|| damaged("it names no project"))?;
        let more = note(MORE_NAMES)
            .and_then(|json| serde_json::from_str(json).ok())
            .ok_or_else(|| damaged("it does not name its rare attributes"))?;
        Ok(File { source, metadata, project, has_outlines, parts, more })
    }

    /// What is needed, a block a row group. An attribute that has no value in a block has no column there.
    pub(crate) fn blocks(&self, needed: &Needed, dictionaries: &Dictionaries) -> io::Result<Vec<Block>> {
        let block = |group: usize| {
            let mut block = Block::without_places(self.rows(group));
            if needed.numbers {
                block.tx = Arc::new(self.numbers(group, TX)?);
            }
            if needed.stamps {
                block.stamp = Arc::new(self.numbers(group, STAMP)?);
            }
            Ok(block.with_columns(self.columns_in(group, &needed.attributes, None, dictionaries)?))
        };
        (0..self.metadata.num_row_groups()).map(|group| block(group).map_err(disk_error)).collect()
    }

    /// Where all that is needed is.
    pub(crate) fn parts_of(&self, needed: &Needed) -> Vec<Range<u64>> {
        let ours =
            [(needed.numbers, TX), (needed.stamps, STAMP), (needed.attributes.iter().any(|name| self.more.contains_key(name)), MORE)];
        let ours = ours.iter().filter(|(is_needed, _)| *is_needed).map(|(_, place)| *place);
        let theirs = self.parts.iter().filter(|(_, part)| needed.attributes.contains(&part.attribute)).map(|(place, _)| *place);
        let places: Vec<usize> = ours.chain(theirs).collect();
        let groups = 0..self.metadata.num_row_groups();
        // Where one is nowhere, reading it will say so.
        groups.flat_map(|group| places.iter().filter_map(move |place| self.range(group, *place).ok())).collect()
    }

    /// Columns of the named attributes by row group, of which texts are there only in the rows wanted.
    pub(crate) fn columns_of(&self, names: &BTreeSet<String>, wanted: &[Bits], dictionaries: &Dictionaries) -> io::Result<Vec<Columns>> {
        if wanted.len() != self.metadata.num_row_groups() {
            return Err(damaged("it has other row groups than it had"));
        }
        let columns = |(group, wanted): (usize, &Bits)| match wanted.count() {
            0 => Ok(Columns::new()),
            _ => self.columns_in(group, names, Some(wanted), dictionaries).map_err(disk_error),
        };
        wanted.iter().enumerate().map(columns).collect()
    }

    /// One report.
    pub(crate) fn report(&self, tx: Tx) -> io::Result<Option<StoredReport>> {
        let find = || {
            for group in 0..self.metadata.num_row_groups() {
                if self.may_have(group, tx)
                    && let Some(row) = self.numbers(group, TX)?.iter().position(|one| *one == tx.0)
                {
                    let mut rows = Rows::open(self, group)?;
                    rows.skip(row)?;
                    return Ok(rows.next(1)?.pop());
                }
            }
            Ok(None)
        };
        find().map_err(disk_error)
    }

    /// All reports in their order, a few at a time. After an error there are no more.
    pub(crate) fn reports(&self) -> impl Iterator<Item = io::Result<StoredReport>> + '_ {
        Reports { file: self, groups: 0..self.metadata.num_row_groups(), rows: None, ready: VecDeque::new() }
    }

    /// All files of reports.
    pub(crate) fn attachments(&self, visit: &mut dyn FnMut(&Attachment)) -> io::Result<()> {
        let mut all = || -> ParquetResult<()> {
            for group in 0..self.metadata.num_row_groups() {
                for list in self.cells::<ByteArrayType>(ATTACHMENTS, self.all_pages(group, ATTACHMENTS)?).next(self.rows(group))?.1 {
                    read_attachments(Some(&list))?.iter().for_each(&mut *visit);
                }
            }
            Ok(())
        };
        all().map_err(disk_error)
    }

    fn rows(&self, group: usize) -> usize {
        self.metadata.row_group(group).num_rows() as usize
    }

    fn may_have(&self, group: usize, tx: Tx) -> bool {
        let Some(Statistics::Int64(txs)) = self.metadata.row_group(group).column(TX).statistics() else { return true };
        let (least, greatest) = (txs.min_opt().map(|least| *least as u64), txs.max_opt().map(|greatest| *greatest as u64));
        least.is_none_or(|least| least <= tx.0) && greatest.is_none_or(|greatest| tx.0 <= greatest)
    }

    /// Whether a column has no value in a row group.
    fn is_empty(&self, group: usize, place: usize) -> bool {
        let statistics = self.metadata.row_group(group).column(place).statistics();
        statistics.and_then(Statistics::null_count_opt).is_some_and(|missing| missing == self.rows(group) as u64)
    }

    /// Pages of a column, found one by one through its index: for who goes through rows, or to one of them.
    fn page_by_page(&self, group: usize, place: usize) -> ParquetResult<Box<dyn PageReader>> {
        let chunk = self.metadata.row_group(group).column(place);
        let index = chunk.offset_index_range().ok_or_else(|| damaged("a column has no index"))?;
        let index = decode_offset_index(&self.source.read(index)?)?;
        let pages = SerializedPageReader::new(Arc::new(self.source.clone()), chunk, self.rows(group), Some(index.page_locations))?;
        Ok(Box::new(pages))
    }

    /// The same for who needs them all: they are read at one time.
    fn all_pages(&self, group: usize, place: usize) -> ParquetResult<Box<dyn PageReader>> {
        let whole = self.source.whole(self.range(group, place)?)?;
        let chunk = self.metadata.row_group(group).column(place);
        Ok(Box::new(SerializedPageReader::new(Arc::new(whole), chunk, self.rows(group), None)?))
    }

    /// Where a column's pages are.
    fn range(&self, group: usize, place: usize) -> io::Result<Range<u64>> {
        let chunk = self.metadata.row_group(group).column(place);
        let start = chunk.dictionary_page_offset().unwrap_or(chunk.data_page_offset());
        let end = start.checked_add(chunk.compressed_size()).and_then(|end| u64::try_from(end).ok());
        u64::try_from(start).ok().zip(end).map(|(start, end)| start..end).ok_or_else(|| damaged("a column is nowhere"))
    }

    fn cells<T: DataType>(&self, place: usize, pages: Box<dyn PageReader>) -> Cells<T> {
        let column = self.metadata.file_metadata().schema_descr().column(place);
        let is_optional = column.max_def_level() > 0;
        Cells { reader: ColumnReaderImpl::new(column, pages), is_optional }
    }

    /// A whole column of ours that has a number in every row.
    fn numbers(&self, group: usize, place: usize) -> ParquetResult<Vec<u64>> {
        pages::numbers(self.all_pages(group, place)?.as_mut(), self.rows(group))
    }

    fn columns_in(
        &self,
        group: usize,
        names: &BTreeSet<String>,
        wanted: Option<&Bits>,
        dictionaries: &Dictionaries,
    ) -> ParquetResult<Columns> {
        let mut columns = Columns::new();
        let rare: BTreeSet<&String> = names.iter().filter(|name| self.more.contains_key(*name)).collect();
        let mut more = if rare.is_empty() { BTreeMap::new() } else { self.rare(group, &rare)? };
        for name in names {
            let parts = self.parts.iter().filter(|(place, part)| part.attribute == *name && !self.is_empty(group, *place));
            let parts: Vec<(usize, Kind)> = parts.map(|(place, part)| (*place, part.kind)).collect();
            let column = match (&parts[..], more.remove(name)) {
                ([], None) => continue,
                ([(place, Kind::Int)], None) => {
                    let (present, values) = self.native::<Int64Type>(group, *place)?;
                    Column::Ints(values, present)
                }
                ([(place, Kind::Float)], None) => {
                    let (present, values) = self.native::<DoubleType>(group, *place)?;
                    Column::Floats(values, present)
                }
                (parts, rare) => self.codes(group, parts, rare.unwrap_or_default(), wanted, dictionaries.of(name))?,
            };
            columns.insert(name.clone(), Arc::new(column));
        }
        Ok(columns)
    }

    /// Numbers, with 0 in rows that have none.
    fn native<T: DataType>(&self, group: usize, place: usize) -> ParquetResult<(Present, Vec<T::T>)> {
        let rows = self.rows(group);
        let (levels, values) = self.cells::<T>(place, self.all_pages(group, place)?).next(rows)?;
        if values.len() == rows {
            return Ok((None, values));
        }
        let mut values = values.into_iter();
        let mut value = |level: &i16| if *level == 1 { values.next().unwrap_or_default() } else { T::T::default() };
        let spread = levels.iter().map(&mut value).collect();
        Ok((Some(Bits::from_fn(rows, |row| levels[row] == 1)), spread))
    }

    fn codes(
        &self,
        group: usize,
        parts: &[(usize, Kind)],
        rare: Vec<(usize, Value)>,
        wanted: Option<&Bits>,
        dictionary: Arc<Dictionary>,
    ) -> ParquetResult<Column> {
        let rows = self.rows(group);
        let mut codes = vec![MISSING; rows];
        for &(place, kind) in parts {
            if kind == Kind::Text {
                pages::codes(self.all_pages(group, place)?.as_mut(), &dictionary, wanted, &mut codes)?;
                continue;
            }
            let values = AnyCells::new(self, place, kind, self.all_pages(group, place)?).next(rows)?;
            let present = || values.iter().enumerate().filter_map(|(row, value)| Some((row, value.as_ref()?)));
            let given = dictionary.intern_all(present().map(|(_, value)| value));
            present().zip(given).for_each(|((row, _), code)| codes[row] = code);
        }
        let given = dictionary.intern_all(rare.iter().map(|(_, value)| value));
        rare.iter().zip(given).for_each(|((row, _), code)| codes[*row] = code);
        Ok(Column::Codes(codes, dictionary))
    }

    /// Values of some attributes that have no column, with their rows.
    fn rare<'n>(&self, group: usize, names: &BTreeSet<&'n String>) -> ParquetResult<BTreeMap<&'n String, Vec<(usize, Value)>>> {
        let mut found: BTreeMap<&String, Vec<(usize, Value)>> = BTreeMap::new();
        let objects = self.cells::<ByteArrayType>(MORE, self.all_pages(group, MORE)?).spread(self.rows(group))?;
        for (row, object) in objects.iter().enumerate() {
            let mut object = read_more(object.as_ref())?;
            for name in names {
                if let Some(value) = object.remove(*name) {
                    found.entry(name).or_default().push((row, value));
                }
            }
        }
        Ok(found)
    }
}

struct Reports<'f> {
    file: &'f File,
    groups: std::ops::Range<usize>,
    rows: Option<Rows<'f>>,
    ready: VecDeque<StoredReport>,
}

impl Reports<'_> {
    /// Reads on when nothing is ready.
    fn read(&mut self) -> ParquetResult<()> {
        while self.ready.is_empty() {
            match &mut self.rows {
                Some(rows) if rows.left > 0 => self.ready.extend(rows.next(BATCH)?),
                _ => match self.groups.next() {
                    Some(group) => self.rows = Some(Rows::open(self.file, group)?),
                    None => break,
                },
            }
        }
        Ok(())
    }
}

impl Iterator for Reports<'_> {
    type Item = io::Result<StoredReport>;

    fn next(&mut self) -> Option<io::Result<StoredReport>> {
        if let Err(error) = self.read() {
            (self.groups, self.rows) = (0..0, None);
            return Some(Err(disk_error(error)));
        }
        self.ready.pop_front().map(Ok)
    }
}

/// All columns of a row group, read on in step.
struct Rows<'f> {
    file: &'f File,
    left: usize,
    txs: Cells<Int64Type>,
    stamps: Cells<Int64Type>,
    ids: Cells<FixedLenByteArrayType>,
    attachments: Cells<ByteArrayType>,
    more: Cells<ByteArrayType>,
    bodies: Cells<ByteArrayType>,
    outlines: Option<Cells<ByteArrayType>>,
    parts: Vec<(&'f Part, AnyCells)>,
}

impl<'f> Rows<'f> {
    fn open(file: &'f File, group: usize) -> ParquetResult<Rows<'f>> {
        let mut opened = Vec::new();
        for (place, part) in file.parts.iter().filter(|(place, _)| !file.is_empty(group, *place)) {
            opened.push((part, AnyCells::new(file, *place, part.kind, file.page_by_page(group, *place)?)));
        }
        let pages = |place: usize| file.page_by_page(group, place);
        Ok(Rows {
            file,
            left: file.rows(group),
            txs: file.cells(TX, pages(TX)?),
            stamps: file.cells(STAMP, pages(STAMP)?),
            ids: file.cells(UUID, pages(UUID)?),
            attachments: file.cells(ATTACHMENTS, pages(ATTACHMENTS)?),
            more: file.cells(MORE, pages(MORE)?),
            bodies: file.cells(RAW, pages(RAW)?),
            outlines: if file.has_outlines { Some(file.cells(OUTLINE, pages(OUTLINE)?)) } else { None },
            parts: opened,
        })
    }

    fn skip(&mut self, rows: usize) -> ParquetResult<()> {
        self.left -= rows;
        self.txs.skip(rows)?;
        self.stamps.skip(rows)?;
        self.ids.skip(rows)?;
        self.attachments.skip(rows)?;
        self.more.skip(rows)?;
        self.bodies.skip(rows)?;
        self.outlines.iter_mut().try_for_each(|outlines| outlines.skip(rows))?;
        self.parts.iter_mut().try_for_each(|(_, cells)| cells.skip(rows))
    }

    /// The next reports, at most so many.
    fn next(&mut self, most: usize) -> ParquetResult<Vec<StoredReport>> {
        let count = most.min(self.left);
        self.left -= count;
        let mut attributes: Vec<Vec<(String, Value)>> = vec![Vec::with_capacity(self.parts.len()); count];
        for (part, cells) in &mut self.parts {
            for (pairs, value) in attributes.iter_mut().zip(cells.next(count)?) {
                pairs.extend(value.map(|value| (part.attribute.clone(), value)));
            }
        }
        for (pairs, object) in attributes.iter_mut().zip(self.more.spread(count)?) {
            pairs.extend(read_more(object.as_ref())?);
        }
        let (txs, stamps) = (self.txs.next(count)?.1, self.stamps.next(count)?.1);
        let numbers = txs.into_iter().zip(stamps).map(|(tx, stamp)| (Tx(tx as u64), Stamp::from_micros(stamp as u64)));
        let ids = self.ids.spread(count)?.into_iter().map(|id| id.map(|id| ReportId(id.data().try_into().expect("of 16 bytes"))));
        let attachments = self.attachments.spread(count)?.into_iter().map(|json| read_attachments(json.as_ref()));
        let outlines = match &mut self.outlines {
            Some(outlines) => outlines.spread(count)?,
            None => vec![None; count],
        };
        let bodies = self.bodies.spread(count)?.into_iter().zip(outlines);
        let rest = numbers.zip(ids).zip(attachments).zip(bodies);
        let stored = attributes.into_iter().zip(rest).map(|(pairs, ((((tx, stamp), id), attachments), body))| {
            let report = Report { project: self.file.project, tx, stamp, attributes: Attributes::from_pairs(pairs) };
            let raw = match body {
                (Some(body), _) => Some(body.data().to_vec()),
                (None, Some(outline)) => outline::body(outline.data(), &report.attributes, id),
                (None, None) => None,
            };
            let raw = raw.ok_or_else(|| damaged("a report has no body"))?;
            Ok(StoredReport { report, id, raw, attachments: attachments? })
        });
        stored.collect()
    }
}

fn read_more(object: Option<&ByteArray>) -> ParquetResult<BTreeMap<String, Value>> {
    let read = |object: &ByteArray| serde_json::from_slice(object.data()).map_err(|_| damaged("`_more` is no JSON object"));
    Ok(object.map_or(Ok(BTreeMap::new()), read)?)
}

fn read_attachments(list: Option<&ByteArray>) -> ParquetResult<Vec<Attachment>> {
    let Some(list) = list else { return Ok(Vec::new()) };
    let files: Option<Vec<ListedFile>> = serde_json::from_slice(list.data()).ok();
    let read = files.and_then(|files| files.into_iter().map(ListedFile::read).collect());
    Ok(read.ok_or_else(|| damaged("`_attachments` is no list of files"))?)
}

/// A column of a row group, read row after row.
struct Cells<T: DataType> {
    reader: ColumnReaderImpl<T>,
    is_optional: bool,
}

impl<T: DataType> Cells<T> {
    fn skip(&mut self, rows: usize) -> ParquetResult<()> {
        if self.reader.skip_records(rows)? == rows { Ok(()) } else { Err(too_few_rows()) }
    }

    /// For each row 1 or 0, and the values of those that have 1. Where every row must have a value there are only these.
    fn next(&mut self, rows: usize) -> ParquetResult<(Vec<i16>, Vec<T::T>)> {
        let (mut levels, mut values) = (Vec::with_capacity(if self.is_optional { rows } else { 0 }), Vec::with_capacity(rows));
        let (read, ..) = self.reader.read_records(rows, self.is_optional.then_some(&mut levels), None, &mut values)?;
        if read == rows { Ok((levels, values)) } else { Err(too_few_rows()) }
    }

    /// The next rows of a column in which values may be missing, or may have been when it was written.
    fn spread(&mut self, rows: usize) -> ParquetResult<Vec<Option<T::T>>> {
        let (levels, values) = self.next(rows)?;
        if !self.is_optional {
            return Ok(values.into_iter().map(Some).collect());
        }
        let mut values = values.into_iter();
        Ok(levels.into_iter().map(|level| if level == 1 { values.next() } else { None }).collect())
    }
}

fn too_few_rows() -> ParquetError {
    damaged("a column is too short").into()
}

/// A column of an attribute.
enum AnyCells {
    Text(Cells<ByteArrayType>),
    Int(Cells<Int64Type>),
    UInt(Cells<Int64Type>),
    Float(Cells<DoubleType>),
    Bool(Cells<BoolType>),
}

impl AnyCells {
    fn new(file: &File, place: usize, kind: Kind, pages: Box<dyn PageReader>) -> AnyCells {
        match kind {
            Kind::Text => AnyCells::Text(file.cells(place, pages)),
            Kind::Int => AnyCells::Int(file.cells(place, pages)),
            Kind::UInt => AnyCells::UInt(file.cells(place, pages)),
            Kind::Float => AnyCells::Float(file.cells(place, pages)),
            Kind::Bool => AnyCells::Bool(file.cells(place, pages)),
        }
    }

    fn skip(&mut self, rows: usize) -> ParquetResult<()> {
        match self {
            AnyCells::Text(cells) => cells.skip(rows),
            AnyCells::Int(cells) | AnyCells::UInt(cells) => cells.skip(rows),
            AnyCells::Float(cells) => cells.skip(rows),
            AnyCells::Bool(cells) => cells.skip(rows),
        }
    }

    fn next(&mut self, rows: usize) -> ParquetResult<Vec<Option<Value>>> {
        match self {
            AnyCells::Text(cells) => {
                let text = |bytes: ByteArray| Ok(Value::Text(bytes.as_utf8()?.to_owned()));
                cells.spread(rows)?.into_iter().map(|cell| cell.map(text).transpose()).collect()
            }
            AnyCells::Int(cells) => Ok(cells.spread(rows)?.into_iter().map(|cell| cell.map(Value::Int)).collect()),
            AnyCells::UInt(cells) => {
                let unsigned = |number: i64| Value::UInt(number as u64);
                Ok(cells.spread(rows)?.into_iter().map(|cell| cell.map(unsigned)).collect())
            }
            AnyCells::Float(cells) => Ok(cells.spread(rows)?.into_iter().map(|cell| cell.map(Value::Float)).collect()),
            AnyCells::Bool(cells) => Ok(cells.spread(rows)?.into_iter().map(|cell| cell.map(Value::Bool)).collect()),
        }
    }
}

#[cfg(test)]
impl File {
    /// Names of all columns.
    pub(super) fn columns(&self) -> impl Iterator<Item = &str> {
        self.metadata.file_metadata().schema_descr().columns().iter().map(|column| column.name())
    }

    /// How many rows each page of a column has in a row group, and whether there is a dictionary before them.
    pub(super) fn pages_of(&self, group: usize, column: &str) -> (Vec<usize>, bool) {
        let place = self.columns().position(|name| name == column).expect("a column");
        let mut pages = self.all_pages(group, place).expect("readable");
        let (mut rows, mut has_dictionary) = (Vec::new(), false);
        while let Some(page) = pages.get_next_page().expect("readable") {
            match page {
                Page::DictionaryPage { .. } => has_dictionary = true,
                page => rows.push(page.num_values() as usize),
            }
        }
        (rows, has_dictionary)
    }
}
