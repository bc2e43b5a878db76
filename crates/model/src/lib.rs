//! Pure values shared by every crate: reports, queries, windows, points, and what aggregates mean.
//!
//! Nothing here does I/O or reads a clock; time and bytes come in as arguments. Everything that two crates
//! must agree on (how a value is compared, which window a stamp falls in, what `unique` counts) is decided here once.

pub mod aggregate;
pub mod backtrace;
pub mod derived;
pub mod grammar;
pub mod oracle;
pub mod point;
pub mod problem;
pub mod query;
pub mod report;
pub mod secret;
pub mod sum;
pub mod template;
mod time;
pub mod value;

pub use aggregate::{Aggregate, AggregateOp, Cell, Partial};
pub use derived::{Derived, Function, Granularity};
pub use point::{Batch, Counter, Label, Page, PageSeries, Point, Series, Shape};
pub use problem::Problem;
pub use query::{
    Beyond, Condition, Direction, Filter, Keep, Key, Most, Operator, Parted, Query, Selected, Selection, Table, TableRow, Top,
};
pub use report::{Attachment, Attributes, NewAttachment, NewReport, ProjectId, Report, ReportId, Tx, aliases};
pub use secret::Secret;
pub use template::PathTemplate;
pub use time::{Period, Stamp, Window};
pub use value::{Number, Value};
