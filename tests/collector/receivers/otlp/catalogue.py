"""All cases of the bad-input catalogue; the modules that are imported here fill it."""

from tests.collector.receivers.otlp import bad_access as bad_access
from tests.collector.receivers.otlp import bad_content as bad_content
from tests.collector.receivers.otlp import bad_structure as bad_structure
from tests.collector.receivers.otlp.bad_inputs import CASES as CASES
