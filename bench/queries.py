"""What is asked: the six shapes of Explore and the metrics of a window, in our form and in SQL. No engine is run here."""

import random

DAY = 86_400
LAST_HOUR = DAY - DAY // 24
# The first stamp of the data in seconds; `evaluation.rs` has the same.
START = 1_800_057_600

TEXTS = ["guid", "fingerprint", "app.version", "error.type", "application", "hostname", "uname.sysname", "device.model", "user.id"]
NUMBERS = ["process.age", "memory.rss", "http.status"]
ERRORS = ["Crash", "Exception", "Hang", "OutOfMemory", "Assertion", "AccessViolation", "StackOverflow", "UnhandledRejection"]


def query(group=(), filter=(), aggregates=(), derived=()):
    conditions = [{"attribute": a, "operator": o, "operand": v} for a, o, v in filter]
    return {
        "filter": [conditions] if conditions else [],
        "group": list(group),
        "aggregates": [{"op": op, "attribute": attribute} for op, attribute in aggregates],
        "derived": list(derived),
    }


ROWS = ("count", "_tx")
MINUTE = {"name": "minute", "source": "timestamp.received", "function": {"quantize": {"size": 60, "offset": 0}}}


class Shape:
    """A query of Explore: ours, over which part of the day, only the greatest how many groups; SQL in its parts."""

    def __init__(self, name, title, ours, sql, span=(0, DAY), top=None):
        self.name, self.title, self.ours, self.sql, self.span, self.top = name, title, ours, sql, span, top


# In SQL, `{rows}` stands for the table, `{name}` of an attribute for its column, and the functions of `Dialect` for what they are called.
SHAPES = [
    Shape(
        "Q1",
        "rows and unique(_tx)",
        query(aggregates=[ROWS, ("unique", "_tx")]),
        "SELECT count(*) AS a, count(*) AS b FROM {rows}",
    ),
    Shape(
        "Q2",
        "rows and unique(guid) by app.version",
        query(["app.version"], aggregates=[ROWS, ("unique", "guid")]),
        "SELECT {app.version}, count(*), {unique:guid} FROM {rows} GROUP BY {app.version}",
    ),
    Shape(
        "Q3",
        "rows by fingerprint, top 100",
        query(["fingerprint"], aggregates=[ROWS]),
        "SELECT {fingerprint} AS k, count(*) AS n FROM {rows} GROUP BY {fingerprint} ORDER BY n DESC, {text:k} LIMIT 100",
        top=100,
    ),
    Shape(
        "Q4",
        "unique(user.id) by error.type, of an application, hostname by regular expression",
        query(
            ["error.type"],
            [("application", "equal", "application-3"), ("hostname", "regular-expression", "^host-[0-2].*7$")],
            [("unique", "user.id")],
        ),
        "SELECT {error.type}, {unique:user.id} FROM {rows} "
        "WHERE {application} = 'application-3' AND {match:hostname:^host-[0-2].*7$} GROUP BY {error.type}",
    ),
    Shape(
        "Q5",
        "min, max, sum, first, last of process.age by device.model over the last hour",
        query(["device.model"], aggregates=[(op, "process.age") for op in ("min", "max", "sum", "first", "last")]),
        "SELECT {device.model}, min({process.age}) AS a, max({process.age}) AS b, sum({process.age}) AS c, {first:process.age} AS d, "
        "{last:process.age} AS e FROM {rows} WHERE {last_hour} GROUP BY {device.model}",
        span=(LAST_HOUR, DAY),
    ),
    Shape(
        "Q6",
        "rows by minute and error.type",
        query(["minute", "error.type"], aggregates=[ROWS], derived=[MINUTE]),
        "SELECT {minute} AS m, {error.type}, count(*) FROM {rows} GROUP BY m, {error.type}",
    ),
]

GROUPS = ["app.version", "error.type", "application", "hostname", "uname.sysname", "device.model", "fingerprint", "http.status"]
# Three times as often as any other.
REPORTS = ("unique", "_tx")
OTHERS = [
    ("count", "http.status"),
    ("unique", "guid"),
    ("unique", "user.id"),
    ("max", "process.age"),
    ("sum", "memory.rss"),
    ("mean", "process.age"),
    ("last", "memory.rss"),
]


def metrics(count, seed=7):
    """20 % ungrouped, 60 % by one attribute, 20 % by two; half with one or two conditions; one to three aggregates."""
    draw = random.Random(seed)
    return [metric(draw) for _ in range(count)]


def disjoint_metrics(count):
    """As many metrics, each with a filter that no other has."""
    many = metrics(count, seed=8)
    for place, metric in enumerate(many):
        # So low that all but a few reports pass.
        metric["filter"] = [[{"attribute": "memory.rss", "operator": "greater-than", "operand": place * 4_096}]]
    return many


def metric(draw):
    groups = draw.choices([0, 1, 2], [20, 60, 20])[0]
    conditions = [condition(draw) for _ in range(draw.choice([0, 0, 1, 2]))]
    # Two on one attribute would often let nothing through, of which each engine has its own opinion.
    conditions = list({attribute: (attribute, *rest) for attribute, *rest in conditions}.values())
    count, aggregates = draw.randint(1, 3), []
    while len(aggregates) < count:
        aggregate = draw.choice([REPORTS] * 3 + OTHERS)
        if aggregate not in aggregates:
            aggregates.append(aggregate)
    return query(draw.sample(GROUPS, groups), conditions, aggregates)


def condition(draw):
    text = draw.choice(["equal", "equal", "not-equal"])
    return draw.choice(
        [
            lambda: ("process.age", "greater-than", draw.choice([10, 100, 1_000, 10_000])),
            lambda: ("http.status", "at-least", draw.choice([400, 429, 500])),
            lambda: ("hostname", "contains", str(draw.randrange(30))),
            lambda: ("hostname", "regular-expression", f"^host-[0-2].*{draw.randrange(10)}$"),
            lambda: ("app.version", text, f"{draw.randrange(2)}.{draw.randrange(3)}.{draw.randrange(10)}"),
            lambda: ("error.type", text, draw.choice(ERRORS)),
            lambda: ("application", text, f"application-{draw.randrange(20)}"),
        ]
    )()


class Dialect:
    """How one engine writes what the shapes and metrics need."""

    unique, match, contains, first, last = (
        "count(DISTINCT {0})",
        "regexp_matches({0}, '{1}')",
        "contains({0}, '{1}')",
        "arg_min({0}, _tx)",
        "arg_max({0}, _tx)",
    )
    differs = "{0} IS DISTINCT FROM {1}"
    # The text that a value stands for, where a dictionary's own order is another.
    text = "CAST({0} AS VARCHAR)"
    minute = "epoch_us(_stamp) // 60000000 * 60"
    last_hour = "_stamp >= make_timestamp(CAST({0} AS BIGINT) * 1000000)"
    filtered = "{0} FILTER (WHERE {1})"

    def column(self, name):
        return f'"{name}"'

    def fill(self, pattern, rows):
        """A shape's SQL."""
        out, rest = "", pattern
        while "{" in rest:
            before, _, rest = rest.partition("{")
            name, _, rest = rest.partition("}")
            out += before + self.part(name, rows)
        return out + rest

    def part(self, name, rows):
        kind, _, of = name.partition(":")
        if name == "rows":
            return rows
        if name == "minute":
            return self.minute
        if name == "last_hour":
            return self.last_hour.format(START + LAST_HOUR)
        if kind == "match":
            attribute, _, regex = of.partition(":")
            return self.match.format(self.column(attribute), regex)
        if kind in ("unique", "first", "last"):
            return getattr(self, kind).format(self.column(of))
        if kind == "text":
            return self.text.format(of)
        return self.column(name)

    def aggregate(self, aggregate):
        """An aggregate of a metric."""
        op, attribute = aggregate["op"], aggregate["attribute"]
        if attribute == "_tx":
            # Each report has its own number: peers need not look at it.
            return "count(*)"
        column = self.column(attribute)
        return {
            "count": f"count({column})",
            "unique": self.unique.format(column),
            "max": f"max({column})",
            "sum": f"sum({column})",
            "mean": f"avg({column})",
            "last": self.last.format(column),
        }[op]

    def condition(self, condition):
        column, operand = self.column(condition["attribute"]), condition["operand"]
        literal = f"'{operand}'" if isinstance(operand, str) else str(operand)
        return {
            "equal": f"{column} = {literal}",
            "not-equal": self.differs.format(column, literal),
            "greater-than": f"{column} > {literal}",
            "at-least": f"{column} >= {literal}",
            "contains": self.contains.format(column, operand),
            "regular-expression": self.match.format(column, operand),
        }[condition["operator"]]

    def where(self, query):
        return " AND ".join(self.condition(one) for all in query["filter"] for one in all)

    def metric(self, query, rows):
        """A metric by itself."""
        keys = [self.column(name) for name in query["group"]]
        where = self.where(query)
        named = [f"{self.aggregate(one)} AS c{place}" for place, one in enumerate(query["aggregates"])]
        sql = f"SELECT {', '.join(keys + named)} FROM {rows}"
        return sql + (f" WHERE {where}" if where else "") + (f" GROUP BY {', '.join(keys)}" if keys else "")

    def combined(self, queries, rows):
        """Many metrics of one group key in one query, what is common to several computed once. Returns the SQL, and for each metric
        the column that counts its rows in a group and those of its aggregates; columns are counted from the first behind the keys."""
        keys = [self.column(name) for name in queries[0]["group"]]
        columns = {}
        places = []
        for query in queries:
            where = self.where(query)
            wanted = ["count(*)"] + [self.aggregate(one) for one in query["aggregates"]]
            wanted = [self.restricted(one, where) if where else one for one in wanted]
            places.append([columns.setdefault(one, len(columns)) for one in wanted])
        named = [f"{one} AS c{place}" for one, place in columns.items()]
        sql = f"SELECT {', '.join(keys + named)} FROM {rows}" + (f" GROUP BY {', '.join(keys)}" if keys else "")
        return sql, places

    def restricted(self, aggregate, where):
        return self.filtered.format(aggregate, where)


class ClickHouse(Dialect):
    unique, match, contains, first, last = (
        "uniqExact({0})",
        "match({0}, '{1}')",
        "position({0}, '{1}') > 0",
        "argMin({0}, _tx)",
        "argMax({0}, _tx)",
    )
    # Of columns without missing values, which all text columns of the data are.
    differs = "{0} != {1}"
    text = "toString({0})"
    minute = "toUnixTimestamp(toStartOfMinute(_stamp))"
    last_hour = "_stamp >= toDateTime64({0}, 6, 'UTC')"

    def column(self, name):
        return f"`{name}`"

    def restricted(self, aggregate, where):
        name, _, arguments = aggregate.partition("(")
        arguments = arguments[:-1]
        return f"{name}If({where})" if arguments == "*" else f"{name}If({arguments}, {where})"


class DataFusion(Dialect):
    match = "regexp_like({0}, '{1}')"
    contains = "strpos({0}, '{1}') > 0"
    first, last = "first_value({0} ORDER BY _tx)", "last_value({0} ORDER BY _tx)"
    minute = "CAST(date_part('epoch', date_trunc('minute', _stamp)) AS BIGINT)"
    last_hour = "_stamp >= to_timestamp_micros(CAST({0} AS BIGINT) * 1000000)"
    text = "{0}"
