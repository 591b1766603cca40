"""
Every error that `telemetry` raises on purpose.

    TelemetryError
    ├── ConfigError         an argument or a variable cannot be used; only configure() raises it
    └── MissingDependency   an optional package is needed; the text names what to install

After `configure()` nothing is raised into the application: a failure is counted, said once on
stderr and survived.
"""


class TelemetryError(Exception):
    """The root; catch it to catch everything that `telemetry` raises on purpose."""


class ConfigError(TelemetryError, ValueError):
    """
    The settings cannot be used.

    Args:
        problems: one text each, with the argument or variable, its value and the fix.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class MissingDependency(TelemetryError, ImportError):
    """
    An optional package is not installed.

    Args:
        feature: what was asked for.
        requirement: what to install, as pip takes it.
    """

    def __init__(self, feature: str, requirement: str) -> None:
        super().__init__(
            f'{feature} needs a package that is not installed: pip install "{requirement}"'
        )
        self.requirement = requirement
