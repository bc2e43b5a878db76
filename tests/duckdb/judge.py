"""Compares answers of ours with DuckDB's over the same Parquet files.

    judge.py FOLDER             FOLDER/cases.json: files of FOLDER, queries, and our answers
    judge.py FOLDER PAGE        a page of documentation: each ```sql block must give the ```text block behind it

The queries are translated here from what docs/reports-on-disk.md and the model say, not from the code that is judged. Whatever
differs is printed; the exit code is 1 then.
"""

import json
import pathlib
import re
import sys
from decimal import Decimal

import duckdb

KINDS = ["text", "int", "uint", "float", "bool"]
OURS = ["_tx", "_stamp", "_uuid", "_attachments", "_more", "_raw", "_outline"]
VERSIONS = ["application.version", "app.version", "release", "version"]
ALIASED = ["application.version", "app.version", "release"]
# Whole numbers up to 2^64 and six decimal places, all exact.
DECIMAL = "DECIMAL(38,6)"
DIGITS = "[+-]?[0-9]+"
NUMBER = DIGITS + r"(\.[0-9]*)?([eE][+-]?[0-9]+)?"
YEAR_10000 = 253402300800


def quoted(name):
    return '"' + name.replace('"', '""') + '"'


def text(value):
    return "'" + value.replace("'", "''") + "'"


class Attribute:
    """SQL for an attribute: its written form, its number, the type it was sent as. All are null where it is missing."""

    def __init__(self, written, number, kind):
        self.written, self.number, self.kind = written, number, kind


def of_columns(columns):
    """An attribute from its columns, each with its type; at most one has a value."""
    written, number, kind = [], [], []
    for column, type_ in columns:
        as_written, as_number = {
            "text": (column, text_number(column)),
            "int": (f"CAST({column} AS VARCHAR)", f"CAST({column} AS {DECIMAL})"),
            "uint": (f"CAST({column} AS VARCHAR)", f"CAST({column} AS {DECIMAL})"),
            "float": (float_written(column), f"CAST({column} AS {DECIMAL})"),
            "bool": (f"CASE WHEN {column} THEN 'true' ELSE 'false' END", f"CAST({column} AS INTEGER)"),
        }[type_]
        written.append(f"WHEN {column} IS NOT NULL THEN {as_written}")
        number.append(f"WHEN {column} IS NOT NULL THEN {as_number}")
        kind.append(f"WHEN {column} IS NOT NULL THEN '{type_}'")
    if not columns:
        return Attribute("CAST(NULL AS VARCHAR)", f"CAST(NULL AS {DECIMAL})", "CAST(NULL AS VARCHAR)")
    return Attribute(*(f"CASE {' '.join(cases)} END" for cases in (written, number, kind)))


def float_written(column):
    return f"CASE WHEN {column} = trunc({column}) THEN CAST(CAST({column} AS HUGEINT) AS VARCHAR) ELSE CAST({column} AS VARCHAR) END"


def text_number(column):
    whole = f"CAST(ltrim({column}, '+') AS {DECIMAL})"
    real = f"CAST(CAST(ltrim({column}, '+') AS DOUBLE) AS {DECIMAL})"
    return (
        f"CASE WHEN regexp_full_match({column}, '{DIGITS}') THEN {whole} "
        f"WHEN regexp_full_match({column}, '{NUMBER}') THEN {real} END"
    )


def of_whole(number):
    """An attribute that is computed as a whole number."""
    return Attribute(
        f"CAST({number} AS VARCHAR)",
        f"CAST({number} AS {DECIMAL})",
        f"CASE WHEN {number} IS NOT NULL THEN CASE WHEN {number} > 9223372036854775807 THEN 'uint' ELSE 'int' END END",
    )


RECEIVED = "CAST(epoch_us(_stamp) // 1000000 AS HUGEINT)"


class File:
    """A file's columns by attribute, and a table of what queries need of them."""

    def __init__(self, database, path):
        self.database = database
        self.source = f"read_parquet({text(str(path))})"
        exact = database.execute(f"SELECT name FROM parquet_schema({text(str(path))}) WHERE type IS NOT NULL").fetchall()
        # DuckDB takes upper and lower case for the same and then renames, but it keeps the order.
        known = database.execute(f"DESCRIBE SELECT * FROM {self.source}").fetchall()
        assert len(exact) == len(known) and [name for (name,) in exact[: len(OURS)]] == OURS, exact
        self.columns = {}
        for (name,), (given, sql_type, *_) in list(zip(exact, known))[len(OURS) :]:
            type_ = {"VARCHAR": "text", "BIGINT": "int", "UBIGINT": "uint", "DOUBLE": "float", "BOOLEAN": "bool"}[sql_type]
            attribute, bar, suffix = name.rpartition("|")
            if not bar or suffix not in KINDS:
                attribute, suffix = name, type_
            assert suffix == type_, name
            self.columns.setdefault(attribute, []).append((quoted(given), type_))

    def load(self, names):
        """Reads the attributes into the table `loaded`; the n-th has the columns wn, nn and kn."""
        self.places = {name: place for place, name in enumerate(sorted(names))}
        columns = ["_tx", "_stamp"]
        for name, place in self.places.items():
            one = self.attribute(name)
            columns += [f"{one.written} AS w{place}", f"{one.number} AS n{place}", f"{one.kind} AS k{place}"]
        self.database.execute(f"CREATE OR REPLACE TABLE loaded AS SELECT {', '.join(columns)} FROM {self.source}")

    def stored(self, name):
        names = [name] + (VERSIONS if name in ALIASED else [])
        found = [of_columns(self.columns[name]) for name in names if name in self.columns]
        if not found:
            return of_columns([])

        def first(pick):
            return "CASE " + " ".join(f"WHEN {one.written} IS NOT NULL THEN {pick(one)}" for one in found) + " END"

        return Attribute(first(lambda one: one.written), first(lambda one: one.number), first(lambda one: one.kind))

    def attribute(self, name):
        if name == "_tx":
            return of_whole("CAST(_tx AS HUGEINT)")
        if name == "timestamp.received":
            return of_whole(RECEIVED)
        if name == "report.delay":
            sent = of_columns(self.columns.get("timestamp", [])).number
            delay = f"{RECEIVED} - CAST(trunc({sent}) AS HUGEINT)"
            return of_whole(f"CASE WHEN {delay} BETWEEN -60 AND {100 * 86400} THEN greatest({delay}, 0) END")
        return self.stored(name)

    def named(self, name, derived):
        for one in derived:
            if one["name"] == name:
                return of_whole(derive(f"n{self.places[one['source']]}", one["function"]))
        place = self.places[name]
        return Attribute(f"w{place}", f"n{place}", f"k{place}")


def derive(number, function):
    whole = f"CAST(floor({number}) AS HUGEINT)"
    (how, what), = function.items()
    if how == "quantize":
        size, moved = what["size"], f"({whole} + {what['offset']})"
        start = f"{moved} - (({moved} % {size} + {size}) % {size}) - {what['offset']}"
        return f"CASE WHEN {start} BETWEEN -9223372036854775808 AND 18446744073709551615 THEN {start} END"
    moment = f"make_timestamp(CAST({whole} * 1000000 AS BIGINT))"
    start = f"CAST(epoch_us(date_trunc('{what}', {moment})) // 1000000 AS HUGEINT)"
    return f"CASE WHEN abs({whole}) < {YEAR_10000} THEN {start} END"


def operand_written(operand):
    if isinstance(operand, bool):
        return "true" if operand else "false"
    if isinstance(operand, float):
        return str(int(operand)) if operand == int(operand) else repr(operand)
    return str(operand)


def operand_number(operand):
    if isinstance(operand, str):
        if re.fullmatch("0[xX][0-9a-fA-F]{1,16}", operand):
            return Decimal(int(operand, 16))
        operand = operand.removesuffix(".")
        return Decimal(operand) if re.fullmatch(NUMBER, operand, re.ASCII) else None
    return Decimal(int(operand) if isinstance(operand, bool) else repr(operand))


def condition(one, written, number, kind):
    operator, insensitive, operand = one["operator"], one["case_insensitive"], one["operand"]
    negated = {"not-equal": "equal", "not-contains": "contains", "inverse-regular-expression": "regular-expression", "is-not-set": "is-set"}
    if operator in negated:
        return f"NOT {condition({**one, 'operator': negated[operator]}, written, number, kind)}"
    want, want_number = text(operand_written(operand)), operand_number(operand)
    if operator == "is-set":
        return f"({written} IS NOT NULL)"
    if operator == "equal":
        terms = [f"{written} = {want}"]
        if insensitive:
            terms.append(f"lower({written}) = lower({want})")
        if want_number is not None:
            terms.append(f"({kind} <> 'text' AND {number} = {want_number:f})")
        return f"coalesce({' OR '.join(terms)}, false)"
    if operator == "contains":
        have, want = (f"lower({written})", f"lower({want})") if insensitive else (written, want)
        return f"coalesce(contains({have}, {want}), false)"
    if operator == "regular-expression":
        return f"coalesce(regexp_matches({written}, {want}, '{'i' if insensitive else 'c'}'), false)"
    sign = {"at-least": ">=", "at-most": "<=", "greater-than": ">", "less-than": "<"}[operator]
    by_text = f"{written} {sign} {want}"
    if want_number is None:
        return f"coalesce({by_text}, false)"
    return f"coalesce(CASE WHEN {number} IS NOT NULL THEN {number} {sign} {want_number:f} ELSE {by_text} END, false)"


def names_of(query):
    conditions = [one for all_ in query["filter"] for one in all_]
    return {one["attribute"] for one in conditions + query["aggregates"]} | set(query["group"])


def translate(file, query):
    filters = query["filter"]
    places = {name: place for place, name in enumerate(sorted(names_of(query)))}
    inner = ["_tx", "_stamp"]
    for name, place in places.items():
        one = file.named(name, query.get("derived", []))
        inner += [f"{one.written} AS w{place}", f"{one.number} AS n{place}", f"{one.kind} AS k{place}"]
    alternatives = []
    for all_ in filters:
        terms = [condition(one, *(f"{letter}{places[one['attribute']]}" for letter in "wnk")) for one in all_]
        alternatives.append("(" + " AND ".join(terms or ["true"]) + ")")
    cells = []
    for one in query["aggregates"]:
        w, n, k = (f"{letter}{places[one['attribute']]}" for letter in "wnk")
        cells.append(
            {
                "count": f"count({w})",
                "unique": f"count(DISTINCT {w})",
                "min": f"min({n})",
                "max": f"max({n})",
                "sum": f"coalesce(sum({n}), 0)",
                "mean": f"CAST(sum({n}) AS DOUBLE) / nullif(count({n}), 0)",
                "first": f"first({k} || ':' || {w} ORDER BY _stamp, _tx) FILTER (WHERE {w} IS NOT NULL)",
                "last": f"last({k} || ':' || {w} ORDER BY _stamp, _tx) FILTER (WHERE {w} IS NOT NULL)",
                "histogram": f"histogram({w}) FILTER (WHERE {w} IS NOT NULL)",
            }[one["op"]]
        )
    keys = [f"w{places[name]}" for name in query["group"]]
    sql = f"WITH r AS (SELECT {', '.join(inner)} FROM loaded) SELECT {', '.join(keys + ['count(*)'] + cells)} FROM r"
    if filters:
        sql += f" WHERE {' OR '.join(alternatives)}"
    if keys:
        sql += f" GROUP BY {', '.join(dict.fromkeys(keys))}"
    return sql


def same(op, ours, theirs):
    if op in ("first", "last"):
        return ours == theirs
    if op == "histogram":
        return dict(ours) == (theirs or {}) and ours == sorted(ours, key=lambda pair: pair[0].encode())
    if ours is None or theirs is None:
        return ours is theirs
    ours = Decimal(ours.partition(":")[2])
    if op in ("sum", "mean"):
        # Decimal fractions are sums of other numbers in binary.
        return abs(ours - Decimal(theirs)) <= max(abs(ours), 1) * Decimal("1e-12")
    return ours == Decimal(theirs)


def differences(query, answer, rows):
    keys = len(query["group"])
    rows = sorted(rows, key=lambda row: [(key is not None, (key or "").encode()) for key in row[:keys]])
    if len(rows) != len(answer["rows"]):
        yield f"{len(answer['rows'])} rows, DuckDB has {len(rows)}: {rows}"
        return
    if sum(row[keys] for row in rows) != answer["matched"]:
        yield f"{answer['matched']} reports, DuckDB has {sum(row[keys] for row in rows)}"
    for ours, theirs in zip(answer["rows"], rows):
        if ours["key"] != list(theirs[:keys]) or ours["matched"] != theirs[keys]:
            yield f"row {ours['key']} of {ours['matched']}, DuckDB has {theirs[: keys + 1]}"
        for one, our_cell, their_cell in zip(query["aggregates"], ours["cells"], theirs[keys + 1 :], strict=True):
            if not same(one["op"], our_cell, their_cell):
                yield f"{one['op']} of {one['attribute']!r} in {ours['key']}: {our_cell!r}, DuckDB has {their_cell!r}"


def judge_cases(database, folder):
    cases = json.loads((folder / "cases.json").read_text(encoding="utf-8"))
    by_file = {}
    for case in cases:
        by_file.setdefault(case["file"], []).append(case)
    differing = 0
    for name, its_cases in by_file.items():
        differing += judge_file(File(database, folder / name), name, its_cases)
    print(f"{len(cases)} queries over {len(by_file)} files, {differing} differ")
    return len(cases) > 0 and differing == 0


def judge_file(file, name, cases):
    queries = [case["query"] for case in cases]
    sources = {one["source"] for query in queries for one in query.get("derived", [])}
    file.load(sources.union(*(names_of(query) for query in queries)))
    differing = 0
    for case in cases:
        query = case["query"]
        sql = translate(file, query)
        try:
            found = list(differences(query, case["answer"], file.database.execute(sql).fetchall()))
        except duckdb.Error as error:
            found = [str(error)]
        if found:
            differing += 1
            print(f"{name}: {json.dumps(query, ensure_ascii=False)}\n  " + "\n  ".join(found) + f"\n  {sql}")
    return differing


def judge_page(database, folder, page):
    pairs = re.findall(r"```sql\n(.*?)```\n+```text\n(.*?)```", page, re.DOTALL)
    assert len(pairs) == page.count("```sql") > 0, "each query needs its answer behind it"
    good = True
    for sql, answer in pairs:
        sql = sql.replace("'DATA/reports/", f"'{folder}/")
        rows = database.execute(sql).fetchall()
        given = "".join(" | ".join("null" if cell is None else str(cell) for cell in row) + "\n" for row in rows)
        if given != answer:
            good = False
            print(f"{sql}says\n{given}and not\n{answer}")
    print(f"{len(pairs)} queries of the page")
    return good


def main():
    folder = pathlib.Path(sys.argv[1])
    database = duckdb.connect()
    database.execute("SET threads = 1; SET TimeZone = 'UTC'")
    if len(sys.argv) > 2:
        good = judge_page(database, folder, pathlib.Path(sys.argv[2]).read_text(encoding="utf-8"))
    else:
        good = judge_cases(database, folder)
    sys.exit(0 if good else 1)


main()
