"""The HTML page that compares cells."""

from datetime import UTC, datetime
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from diffexp.report.assets import asset
from diffexp.report.charts import marker_definitions
from diffexp.report.content import Report
from diffexp.report.page_data import page_data
from diffexp.report.texts import breakable, decimals, interval_text, number

STYLES = ("chart", "report", "viewer", "live")
SCRIPTS = (
    "base",
    "state",
    "plot",
    "charts",
    "chart_view",
    "parallel",
    "pictures",
    "grid",
    "viewer",
    "compare",
    "pairs",
    "results",
    "start",
    "live",
)


@cache
def template(name: str, package: str = "diffexp.report") -> Template:
    """A template of ``templates/`` of a package."""
    environment = Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}
    texts = {"number": number, "interval": interval_text, "decimals": decimals, "breakable": breakable}
    environment.filters |= texts
    return environment.get_template(name)


def page_html(report: Report) -> str:
    """The page as one file that needs no other."""
    return template("report.html.j2").render(
        report=report,
        styles=[(name, asset(f"{name}.css")) for name in STYLES],
        scripts=[asset(f"{name}.js") for name in SCRIPTS],
        markers=marker_definitions(),
        data=page_data(report),
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )
