//! Writes a file in one pass: outlines of bodies go to the disk as they come, the columns of a row group when it is full. Which columns there
//! are and what they are called is known only at the end, which is where a Parquet file says it.

use super::checked::{MAGIC, Sink};
use super::group::{Divided, Limits, Rows, Sparse, Values};
use super::outline::outline_into;
use super::schema::{ATTACHMENTS, Kind, MORE, OURS, OUTLINE, Part, RAW, STAMP, TX, UUID, names, schema};
use super::{FORM, FORM_NOW, MORE_NAMES, PROJECT, disk_error};
use crate::codec::StoredReport;
use crate::disk::{Disk, write_piecewise};
use ::parquet::basic::{Compression, Encoding, ZstdLevel};
use ::parquet::column::writer::{ColumnCloseResult, ColumnWriterImpl, get_column_writer, get_typed_column_writer};
use ::parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, DoubleType, FixedLenByteArrayType, Int64Type};
use ::parquet::errors::{ParquetError, Result as ParquetResult};
use ::parquet::file::metadata::page_index::PageIndexBuilder;
use ::parquet::file::metadata::{
    ColumnChunkMetaData, FileMetaData, KeyValue, ParquetMetaDataBuilder, ParquetMetaDataWriter, RowGroupMetaData,
};
use ::parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesPtr};
use ::parquet::file::writer::{SerializedPageWriter, TrackedWrite};
use ::parquet::schema::types::{ColumnDescPtr, SchemaDescPtr};
use bytes::Bytes;
use model::{ProjectId, Report, Stamp, Tx};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

/// A dictionary page is never too large: whether a column has one is decided before it is written.
const DICTIONARY_BYTES: usize = 1 << 30;
/// Values handed over at once.
const BATCH: usize = 4_096;
/// What the crate calls its middle.
const ZSTD_LEVEL: i32 = 3;
/// For texts of which nearly each is another: what higher levels find to repeat in them is by chance, takes longer to write and to
/// read, and is no shorter.
const ZSTD_LEVEL_OF_TEXTS: i32 = 1;

/// What a file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) reports: u64,
    pub(crate) bytes: u64,
    /// Least and greatest number.
    pub(crate) txs: (Tx, Tx),
    /// Least and greatest stamp.
    pub(crate) stamps: (Stamp, Stamp),
}

/// Writes reports of one project, at least one, which come in the order of stamps and numbers. The file has its name only when it
/// is whole; the name is not durable yet. An error of `reports` is returned as it is.
pub(crate) fn write(disk: &dyn Disk, path: &Path, reports: impl Iterator<Item = io::Result<StoredReport>>) -> io::Result<Summary> {
    write_within(Limits::default(), disk, path, reports)
}

pub(super) fn write_within(
    limits: Limits,
    disk: &dyn Disk,
    path: &Path,
    mut reports: impl Iterator<Item = io::Result<StoredReport>>,
) -> io::Result<Summary> {
    let (_, summary) = write_piecewise(disk, path, |appender| {
        let mut sink = Sink::new(appender);
        let summary = Writer::new(limits, &mut sink).and_then(|writer| writer.write(&mut reports)).map_err(disk_error)?;
        Ok(Summary { bytes: sink.finish()?, ..summary })
    })?;
    Ok(summary)
}

type Out<'s, 'a> = TrackedWrite<&'s mut Sink<'a>>;

/// A file being written.
struct Writer<'s, 'a> {
    limits: Limits,
    out: Out<'s, 'a>,
    encodings: Encodings,
    groups: Vec<Group>,
    /// What has columns, and how many values there are.
    parts: BTreeMap<Part, u64>,
    /// Which attributes have values in `_more`, and how many.
    more: BTreeMap<String, u64>,
}

/// A row group that is on the disk.
struct Group {
    rows: usize,
    ours: [ColumnCloseResult; OURS.len()],
    parts: BTreeMap<Part, ColumnCloseResult>,
}

impl<'s, 'a> Writer<'s, 'a> {
    fn new(limits: Limits, sink: &'s mut Sink<'a>) -> ParquetResult<Writer<'s, 'a>> {
        let mut out = TrackedWrite::new(sink);
        out.write_all(MAGIC)?;
        Ok(Writer { limits, out, encodings: Encodings::new()?, groups: Vec::new(), parts: BTreeMap::new(), more: BTreeMap::new() })
    }

    fn write(mut self, reports: &mut dyn Iterator<Item = io::Result<StoredReport>>) -> ParquetResult<Summary> {
        let mut reports = reports.peekable();
        let mut summary: Option<(ProjectId, Summary)> = None;
        while reports.peek().is_some() {
            self.group(&mut reports, &mut |report| summary.get_or_insert_with(|| empty_summary(report)).1.note(report))?;
        }
        let (project, summary) = summary.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "there are no reports to write"))?;
        self.end(project, summary.reports)?;
        Ok(summary)
    }

    /// Takes reports until a row group is full, and writes it.
    fn group(&mut self, reports: &mut dyn Iterator<Item = io::Result<StoredReport>>, note: &mut dyn FnMut(&Report)) -> ParquetResult<()> {
        let Writer { limits, out, encodings, .. } = self;
        let mut rows = Rows::default();
        let mut outlines = Outlines::new(encodings.start::<ByteArrayType>(out, OUTLINE, &encodings.blobs));
        while !rows.are_full(*limits)
            && let Some(stored) = reports.next()
        {
            let StoredReport { report, id, raw, attachments } = stored?;
            note(&report);
            rows.add(&report, id, &attachments)?;
            if !outlines.add(|text| outline_into(text, &raw, &report.attributes, id))? {
                rows.add_body(raw);
            }
        }
        let outlines = outlines.close()?;
        let Divided { count, txs, stamps, ids, attachments, bodies, parts, more, more_counts } =
            rows.divide(&self.parts, limits.columns)?;
        let (blobs, deltas) = (&encodings.blobs, &encodings.deltas);
        let ours = [
            encodings.every::<Int64Type>(out, TX, deltas, &txs)?,
            encodings.every::<Int64Type>(out, STAMP, deltas, &stamps)?,
            encodings.some::<FixedLenByteArrayType, _>(out, UUID, blobs, count, ids, |id| id)?,
            encodings.some::<ByteArrayType, _>(out, ATTACHMENTS, blobs, count, attachments, |json| json)?,
            encodings.some::<ByteArrayType, _>(out, MORE, blobs, count, more, |json| json)?,
            encodings.some::<ByteArrayType, _>(out, RAW, blobs, count, bodies, |body| body)?,
            outlines,
        ];
        let mut chunks = BTreeMap::new();
        for (part, values) in parts {
            *self.parts.entry(part.clone()).or_default() += values.count() as u64;
            chunks.insert(part, encodings.values(out, count, values)?);
        }
        for (attribute, count) in more_counts {
            *self.more.entry(attribute).or_default() += count;
        }
        self.groups.push(Group { rows: count, ours, parts: chunks });
        Ok(())
    }

    /// Writes what says where everything is.
    fn end(mut self, project: ProjectId, reports: u64) -> ParquetResult<()> {
        let names = names(&self.parts);
        let schema = schema(names.iter().map(|(part, name)| (name.as_str(), part.kind)))?;
        let mut pages = PageIndexBuilder::new(self.groups.len(), schema.num_columns());
        let mut groups = Vec::new();
        for (at, mut group) in self.groups.into_iter().enumerate() {
            let mut chunks = Vec::from(group.ours);
            for part in self.parts.keys() {
                // An attribute that came only in other row groups is missing in every row of this one.
                chunks.push(match group.parts.remove(part) {
                    Some(chunk) => chunk,
                    None => self.encodings.values(&mut self.out, group.rows, Values::new(part.kind))?,
                });
            }
            let mut columns = Vec::with_capacity(chunks.len());
            for (place, chunk) in chunks.into_iter().enumerate() {
                columns.push(named(&chunk.metadata, schema.column(place))?);
                chunk.offset_index.into_iter().for_each(|index| pages.put_offset_index(index, at, place));
            }
            let bytes = columns.iter().map(ColumnChunkMetaData::uncompressed_size).sum();
            let group = RowGroupMetaData::builder(schema.clone()).set_column_metadata(columns).set_num_rows(group.rows as i64);
            groups.push(group.set_total_byte_size(bytes).build()?);
        }
        let more = serde_json::to_string(&self.more).map_err(io::Error::from)?;
        let notes = [(PROJECT, project.0.to_string()), (FORM, FORM_NOW.to_string()), (MORE_NAMES, more)]
            .map(|(key, value)| KeyValue::new(key.to_owned(), value));
        let file = FileMetaData::new(1, reports as i64, Some("crashmeter".to_owned()), Some(notes.into()), schema, None);
        let metadata = ParquetMetaDataBuilder::new(file).set_row_groups(groups).set_page_index(Some(Arc::new(pages.build()))).build();
        self.out.flush()?;
        self.out.inner_mut().hold();
        ParquetMetaDataWriter::new_with_tracked(self.out, &metadata).finish()
    }
}

/// The column of outlines while reports come in: some are handed over at once, as one by one costs more than the outlines.
struct Outlines<'o> {
    column: ColumnWriterImpl<'o, ByteArrayType>,
    /// Those that wait, one after the other, and where each ends.
    text: Vec<u8>,
    ends: Vec<usize>,
    levels: Vec<i16>,
}

/// So many bytes of outlines wait at most, or so many rows.
const OUTLINE_BYTES: usize = 64 << 10;
const OUTLINE_ROWS: usize = 256;

impl<'o> Outlines<'o> {
    fn new(column: ColumnWriterImpl<'o, ByteArrayType>) -> Outlines<'o> {
        Outlines { column, text: Vec::new(), ends: Vec::new(), levels: Vec::new() }
    }

    /// Adds a row; whether it has an outline, as `outline` says.
    fn add(&mut self, outline: impl FnOnce(&mut Vec<u8>) -> bool) -> ParquetResult<bool> {
        let has_one = outline(&mut self.text);
        self.levels.push(i16::from(has_one));
        if has_one {
            self.ends.push(self.text.len());
        }
        if self.text.len() >= OUTLINE_BYTES || self.levels.len() >= OUTLINE_ROWS {
            self.hand_over()?;
        }
        Ok(has_one)
    }

    fn hand_over(&mut self) -> ParquetResult<()> {
        let text = Bytes::from(std::mem::replace(&mut self.text, Vec::with_capacity(2 * OUTLINE_BYTES)));
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let outlines: Vec<ByteArray> = starts.zip(&self.ends).map(|(start, end)| text.slice(start..*end).into()).collect();
        self.column.write_batch(&outlines, Some(&self.levels), None)?;
        self.ends.clear();
        self.levels.clear();
        Ok(())
    }

    fn close(mut self) -> ParquetResult<ColumnCloseResult> {
        self.hand_over()?;
        self.column.close()
    }
}

fn empty_summary(first: &Report) -> (ProjectId, Summary) {
    let (txs, stamps) = ((first.tx, first.tx), (first.stamp, first.stamp));
    (first.project, Summary { reports: 0, bytes: 0, txs, stamps })
}

impl Summary {
    fn note(&mut self, report: &Report) {
        self.reports += 1;
        self.txs = (self.txs.0.min(report.tx), self.txs.1.max(report.tx));
        self.stamps = (self.stamps.0.min(report.stamp), self.stamps.1.max(report.stamp));
    }
}

/// The same chunk under the name that its column got in the end.
fn named(chunk: &ColumnChunkMetaData, column: ColumnDescPtr) -> ParquetResult<ColumnChunkMetaData> {
    let named = ColumnChunkMetaData::builder(column)
        .set_compression_codec(chunk.compression_codec())
        .set_encodings_mask(*chunk.encodings_mask())
        .set_total_compressed_size(chunk.compressed_size())
        .set_total_uncompressed_size(chunk.uncompressed_size())
        .set_num_values(chunk.num_values())
        .set_data_page_offset(chunk.data_page_offset())
        .set_dictionary_page_offset(chunk.dictionary_page_offset());
    match chunk.statistics() {
        Some(statistics) => named.set_statistics(statistics.clone()).build(),
        None => named.build(),
    }
}

/// How columns are encoded.
struct Encodings {
    /// Our columns, then one of each kind under a name that stands for nothing.
    schema: SchemaDescPtr,
    /// For values that occur again and again.
    words: WriterPropertiesPtr,
    /// For whole numbers that ascend or lie close together.
    deltas: WriterPropertiesPtr,
    /// For texts of which nearly each is another: all lengths, then all letters.
    texts: WriterPropertiesPtr,
    /// For other values of which nearly each is another.
    singles: WriterPropertiesPtr,
    /// The same where least and greatest say nothing.
    blobs: WriterPropertiesPtr,
}

impl Encodings {
    fn new() -> ParquetResult<Encodings> {
        let compression = |level| Ok::<_, ParquetError>(Compression::ZSTD(ZstdLevel::try_new(level)?));
        let (usual, of_texts) = (compression(ZSTD_LEVEL)?, compression(ZSTD_LEVEL_OF_TEXTS)?);
        let common = |statistics| {
            WriterProperties::builder().set_compression(usual).set_dictionary_enabled(false).set_statistics_enabled(statistics)
        };
        let chunk = || common(EnabledStatistics::Chunk);
        Ok(Encodings {
            schema: schema(Kind::ALL.iter().map(|kind| (kind.suffix(), *kind)))?,
            words: Arc::new(chunk().set_dictionary_enabled(true).set_dictionary_page_size_limit(DICTIONARY_BYTES).build()),
            deltas: Arc::new(chunk().set_encoding(Encoding::DELTA_BINARY_PACKED).build()),
            texts: Arc::new(chunk().set_compression(of_texts).set_encoding(Encoding::DELTA_LENGTH_BYTE_ARRAY).build()),
            singles: Arc::new(chunk().build()),
            blobs: Arc::new(common(EnabledStatistics::None).build()),
        })
    }

    fn start<'o, T: DataType>(&self, out: &'o mut Out<'_, '_>, place: usize, how: &WriterPropertiesPtr) -> ColumnWriterImpl<'o, T> {
        let pages = Box::new(SerializedPageWriter::new(out));
        get_typed_column_writer(get_column_writer(self.schema.column(place), how.clone(), pages))
    }

    /// Writes a column that has a value in every row.
    fn every<T: DataType>(
        &self,
        out: &mut Out<'_, '_>,
        place: usize,
        how: &WriterPropertiesPtr,
        values: &[T::T],
    ) -> ParquetResult<ColumnCloseResult> {
        let mut column = self.start::<T>(out, place, how);
        column.write_batch(values, None, None)?;
        column.close()
    }

    /// Writes a column that has a value in some rows.
    fn some<T: DataType, V>(
        &self,
        out: &mut Out<'_, '_>,
        place: usize,
        how: &WriterPropertiesPtr,
        rows: usize,
        sparse: Sparse<V>,
        value: impl Fn(V) -> T::T,
    ) -> ParquetResult<ColumnCloseResult> {
        let mut column = self.start::<T>(out, place, how);
        let mut sparse = sparse.into_iter().peekable();
        let (mut values, mut levels) = (Vec::new(), Vec::new());
        for from in (0..rows).step_by(BATCH) {
            values.clear();
            levels.clear();
            for row in from..rows.min(from + BATCH) {
                let present = sparse.next_if(|(at, _)| *at == row as u32);
                levels.push(i16::from(present.is_some()));
                values.extend(present.map(|(_, sparse)| value(sparse)));
            }
            column.write_batch(&values, Some(&levels), None)?;
        }
        column.close()
    }

    /// Writes a column of an attribute.
    fn values(&self, out: &mut Out<'_, '_>, rows: usize, values: Values) -> ParquetResult<ColumnCloseResult> {
        let place = OURS.len() + values.kind() as usize;
        // Codes pay when a value occurs twice on average.
        let pays = |distinct: usize, count: usize| distinct > 0 && distinct * 2 <= count;
        let count = values.count();
        let distinct = values.distinct();
        let how = |otherwise| if pays(distinct, count) { &self.words } else { otherwise };
        match values {
            Values::Text(texts) => {
                let (codes, words) = texts.into_parts();
                self.some::<ByteArrayType, u32>(out, place, how(&self.texts), rows, codes, |code| words[code as usize].clone())
            }
            Values::Int(numbers) | Values::UInt(numbers) => {
                self.some::<Int64Type, i64>(out, place, how(&self.deltas), rows, numbers, |number| number)
            }
            Values::Float(numbers) => self.some::<DoubleType, f64>(out, place, how(&self.singles), rows, numbers, |number| number),
            Values::Bool(answers) => self.some::<BoolType, bool>(out, place, &self.singles, rows, answers, |answer| answer),
        }
    }
}
