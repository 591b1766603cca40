"""
LogQL: the language in which Grafana asks for logs.

`parse` makes a typed tree of a text (`tree`), `show` a text of a tree. What a tree means for log
documents is in `evaluation`; which of its conditions a store can check is in `evaluation.plan`.
"""

from collector.query.logql.errors import LimitError as LimitError
from collector.query.logql.errors import ParseError as ParseError
from collector.query.logql.errors import PipelineError as PipelineError
from collector.query.logql.errors import QueryError as QueryError
from collector.query.logql.parser import parse as parse
from collector.query.logql.parser import parse_log as parse_log
from collector.query.logql.parser import parse_selector as parse_selector
from collector.query.logql.printing import show as show
