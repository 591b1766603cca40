"""
Every attribute, event and metric name that otelier emits or gives a meaning to.

Semantic conventions first (notes: OpenTelemetry 1.44); our own names are domain-first, without a
company prefix, and no name is the prefix of another, because stores turn dots into objects. The
string under each name is its documentation: docs/reference/attributes.md is made from it.

The names stand in three private modules by subject, and all of them are here.
"""

from telemetry._attributes.common import *  # noqa: F403 - all of them, and nothing else is in there
from telemetry._attributes.models import *  # noqa: F403
from telemetry._attributes.work import *  # noqa: F403
