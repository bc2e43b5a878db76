"""A peer in a process of its own. Reads a command a line, answers each with a line of JSON, as `evaluation.rs` does for us:

    peers.py ENGINE native FOLDER FILES     the files loaded into the engine's best form of its own (its scratch files in FOLDER)
    peers.py ENGINE files FOLDER FILES      the Parquet files as they are

A command is {"shape": name}, {"metric": query} or {"metrics": [queries of one group key]}, with "rows" when the rows are to be told.
"""

import hashlib
import json
import os
import resource
import struct
import sys
import time

import pyarrow

import queries

THREADS = 2


class DuckDB:
    def __init__(self, form, folder, files):
        import duckdb

        self.dialect = queries.Dialect()
        self.database = duckdb.connect()
        self.run(f"SET threads = {THREADS}")
        self.run("SET TimeZone = 'UTC'")
        self.run(f"SET temp_directory = '{folder}'")
        source = f"read_parquet('{files}')"
        if form == "files":
            self.rows = source
            # A constant with a time zone, as the files' stamps have one.
            self.dialect.last_hour = "_stamp >= to_timestamp({0})"
            return
        self.rows = "reports"
        # Dictionary types where they pay (see docs/benchmarks.md); stamps without a zone, which are cut to minutes faster.
        kinds = {name: f"ENUM_{place}" for place, name in enumerate(self.enums())}
        for name, kind in kinds.items():
            self.run(f'CREATE TYPE {kind} AS ENUM (SELECT DISTINCT "{name}" FROM {source} ORDER BY 1)')
        kinds["guid"] = "UUID"
        kinds["http.status"], kinds["process.age"] = "USMALLINT", "UINTEGER"
        names = queries.TEXTS + queries.NUMBERS
        columns = [f'CAST("{name}" AS {kinds[name]}) AS "{name}"' if name in kinds else f'"{name}"' for name in names]
        self.run(f"CREATE TABLE reports AS SELECT _tx, _stamp AT TIME ZONE 'UTC' AS _stamp, {', '.join(columns)} FROM {source} ORDER BY _tx")

    def enums(self):
        return [name for name in queries.TEXTS if name not in ("guid", "user.id")]

    def run(self, sql):
        self.database.execute(sql)

    def ask(self, sql):
        return self.database.sql(sql).to_arrow_table()


class ClickHouse:
    def __init__(self, form, folder, files):
        from chdb import session

        self.dialect = queries.ClickHouse()
        self.session = session.Session(os.path.join(folder, "clickhouse"))
        self.settings = f" SETTINGS max_threads = {THREADS}"
        source = f"file('{files}', Parquet)"
        if form == "files":
            self.rows = source
            return
        self.rows = "bench.reports"
        self.run("CREATE DATABASE bench")
        kinds = {name: "LowCardinality(String)" for name in queries.TEXTS}
        kinds.update({"guid": "UUID", "user.id": "String"})
        kinds.update({"process.age": "UInt32", "memory.rss": "Int64", "http.status": "Nullable(UInt16)"})
        columns = ", ".join(f"`{name}` {kind}" for name, kind in kinds.items())
        self.run(f"CREATE TABLE bench.reports (_tx UInt64, _stamp DateTime64(6, 'UTC'), {columns}) ENGINE = MergeTree ORDER BY (_stamp, _tx)")
        names = ", ".join(f"`{name}`" for name in ["_tx", "_stamp", *kinds])
        self.run(f"INSERT INTO bench.reports ({names}) SELECT {names} FROM {source}")
        self.run("OPTIMIZE TABLE bench.reports FINAL")

    def run(self, sql):
        return self.session.query(sql)

    def ask(self, sql):
        answer = self.session.query(sql + self.settings, "Arrow")
        return pyarrow.ipc.open_file(pyarrow.BufferReader(answer.bytes())).read_all()


class Polars:
    def __init__(self, form, folder, files):
        os.environ["POLARS_MAX_THREADS"] = str(THREADS)
        import polars

        self.polars = pl = polars
        self.rows = pl.scan_parquet(files)
        if form == "native":
            names = [pl.col(name).cast(pl.Categorical) for name in queries.TEXTS]
            stamp = pl.col("_stamp").dt.replace_time_zone(None)
            self.rows = self.rows.select("_tx", stamp, *names, *queries.NUMBERS).sort("_tx").collect().rechunk().lazy()

    def ask(self, shape):
        pl, rows = self.polars, self.rows
        count = pl.len().alias("n")
        age = pl.col("process.age")
        hour = pl.lit((queries.START + queries.LAST_HOUR) * 1_000_000).cast(pl.Datetime("us"))
        zone = rows.collect_schema()["_stamp"].time_zone
        lazy = {
            "Q1": lambda: rows.select(count, count.alias("m")),
            "Q2": lambda: rows.group_by("app.version").agg(count, pl.col("guid").n_unique()),
            "Q3": lambda: rows.group_by("fingerprint")
            .agg(count)
            .with_columns(pl.col("fingerprint").cast(pl.String))
            .sort(["n", "fingerprint"], descending=[True, False])
            .head(100),
            "Q4": lambda: rows.filter(
                (pl.col("application") == "application-3") & self.matches("hostname", "^host-[0-2].*7$")
            )
            .group_by("error.type")
            .agg(pl.col("user.id").n_unique()),
            "Q5": lambda: rows.filter(pl.col("_stamp") >= (hour.dt.replace_time_zone(zone) if zone else hour))
            .group_by("device.model")
            .agg(age.min(), age.max().alias("b"), age.sum().alias("c"), age.first().alias("d"), age.last().alias("e")),
            "Q6": lambda: rows.group_by((pl.col("_stamp").dt.epoch("s") // 60 * 60).alias("minute"), "error.type").agg(count),
        }[shape.name]()
        return lazy.collect().to_arrow()

    def matches(self, name, pattern):
        pl = self.polars
        if self.rows.collect_schema()[name] == pl.String:
            return pl.col(name).str.contains(pattern)
        # A pattern is looked for in the dictionary only, as whoever writes such a query by hand does it.
        words = self.rows.select(pl.col(name).unique().cast(pl.String)).collect()[name]
        return pl.col(name).is_in(words.filter(words.str.contains(pattern)).cast(pl.Categorical).implode())


class DataFusion:
    def __init__(self, form, folder, files):
        import datafusion

        assert form == "files", "not measured in any other form"
        self.dialect = queries.DataFusion()
        config = datafusion.SessionConfig().with_target_partitions(THREADS)
        config = config.set("datafusion.execution.parquet.pushdown_filters", "true")
        self.context = datafusion.SessionContext(config)
        self.context.register_parquet("reports", os.path.dirname(files))
        self.rows = "reports"

    def ask(self, sql):
        return self.context.sql(sql).to_arrow_table()


ENGINES = {"duckdb": DuckDB, "chdb": ClickHouse, "polars": Polars, "datafusion": DataFusion}
SHAPES = {shape.name: shape for shape in queries.SHAPES}


def answer(engine, command):
    """Runs a command; returns seconds of wall and processor time, and what has to be told."""
    ask, parts = engine.ask, None
    if "shape" in command:
        question = SHAPES[command["shape"]]
        if not isinstance(engine, Polars):
            question = engine.dialect.fill(question.sql, engine.rows)
    elif "metric" in command:
        question = engine.dialect.metric(command["metric"], engine.rows)
    else:
        question, places = engine.dialect.combined(command["metrics"], engine.rows)
        parts = len(command["metrics"][0]["group"]), places
    wall, cpu = time.perf_counter(), processor()
    table = ask(question)
    wall, cpu = time.perf_counter() - wall, processor() - cpu
    return wall, cpu, split(table, *parts) if parts else [table]


def split(table, keys, places):
    """The tables of the metrics in a combined one: a metric has a group only where it matched something."""
    import pyarrow.compute as compute

    for count, *cells in places:
        columns = list(range(keys)) + [keys + place for place in cells]
        part = table if keys == 0 else table.filter(compute.greater(table.column(keys + count), 0))
        yield pyarrow.Table.from_arrays([part.column(column) for column in columns], [str(n) for n in range(len(columns))])


def tell(table, rows):
    """A table as it is compared: see `evaluation.rs`."""
    lines = ["\t".join(line) for line in zip(*(map(canonical, plain(column)) for column in table.columns))]
    hashes = (int.from_bytes(hashlib.sha256(line.encode()).digest()[:8], "big") for line in lines)
    told = {"groups": len(lines), "digest": f"{sum(hashes) % 2**64:016x}"}
    return told | {"rows": lines} if rows else told


def plain(column):
    if pyarrow.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return column.to_pylist()


def canonical(value):
    if value is None:
        return "-"
    if isinstance(value, bytes):
        value = value.decode()
    if isinstance(value, float):
        return f"={int(value)}" if value == int(value) else f"~{struct.pack('>d', value).hex()}"
    return f"={value}"


def processor():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def resident():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS:"))


def main():
    name, form, folder, files = sys.argv[1:]
    out = os.fdopen(os.dup(1), "w")
    # What engines print goes elsewhere.
    os.dup2(2, 1)
    began = time.perf_counter()
    engine = ENGINES[name](form, folder, files)
    print(json.dumps({"opened": time.perf_counter() - began, "resident": resident()}), file=out, flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        wall, cpu, tables = answer(engine, command)
        told = [tell(table, command.get("rows", False)) for table in tables] if command.get("told", True) else []
        print(json.dumps({"wall": wall, "cpu": cpu, "resident": resident(), "answers": told}), file=out, flush=True)


if __name__ == "__main__":
    main()
