"""All cases of the bad-input catalogue; the modules that are imported here fill it."""

from tests.collector.receivers.otlp.bad_inputs import CASES as CASES
