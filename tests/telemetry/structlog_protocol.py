"""
A stand-in for structlog, which is not among the test requirements.

It is a file of its own, as structlog is: what tells a rendered line from a record of the application
is the code that makes it.
"""


class PrintLogger:
    """Where structlog's lines may end: not in stdlib logging."""

    def __init__(self, lines):
        self.lines = lines

    def msg(self, line):
        self.lines.append(line)

    info = warning = error = exception = debug = msg


class Structlog:
    """
    structlog's protocol, as far as processors see it.

    A dict goes through the processors, and what the last one returns is handed to the wrapped
    logger's method.
    """

    def __init__(self, wrapped, *processors, **bound):
        self.wrapped = wrapped
        self.processors = processors
        self.bound = bound

    def __getattr__(self, method):
        def call(event=None, **fields):
            found = {**self.bound, **fields, "event": event}
            for processor in self.processors:
                found = processor(self.wrapped, method, found)
            return getattr(self.wrapped, method)(found)

        return call
