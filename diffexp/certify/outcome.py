"""Result of a check: one of four verdicts, one sentence, and the numbers behind it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from diffexp.files import plain


class Verdict(Enum):
    PASSED = "passed"
    WARNED = "warning"
    """Worth knowing; the certificate is still passed."""
    FAILED = "failed"
    SKIPPED = "not applicable"


@dataclass(frozen=True)
class Outcome:
    """The result of one check."""

    verdict: Verdict
    sentence: str
    """The finding, or why the check does not apply."""
    numbers: Mapping[str, Any] = field(default_factory=dict)
    """Plain numbers and lists, for ``certificate.json`` and the charts."""

    @property
    def failed(self) -> bool:
        return self.verdict is Verdict.FAILED


def passed(sentence: str, **numbers: Any) -> Outcome:
    return Outcome(Verdict.PASSED, sentence, numbers)


def warned(sentence: str, **numbers: Any) -> Outcome:
    return Outcome(Verdict.WARNED, sentence, numbers)


def failed(sentence: str, **numbers: Any) -> Outcome:
    return Outcome(Verdict.FAILED, sentence, numbers)


def skipped(reason: str, **numbers: Any) -> Outcome:
    return Outcome(Verdict.SKIPPED, f"not applicable: {reason}", numbers)


@dataclass(frozen=True)
class Certificate:
    """All checks of one scheduler."""

    scheduler: str
    options: Mapping[str, Any]
    outcomes: Mapping[str, Outcome]
    """By the name of the check, in the order in which they ran."""
    seconds: float
    versions: Mapping[str, str]

    @property
    def name(self) -> str:
        """The scheduler with its options, as on the command line."""
        return self.scheduler + "".join(f" {key}={value}" for key, value in self.options.items())

    @property
    def failures(self) -> dict[str, Outcome]:
        return {name: outcome for name, outcome in self.outcomes.items() if outcome.failed}

    @property
    def warnings(self) -> dict[str, Outcome]:
        return {name: outcome for name, outcome in self.outcomes.items() if outcome.verdict is Verdict.WARNED}

    @property
    def passed(self) -> bool:
        return not self.failures

    @property
    def verdict(self) -> str:
        """``passed``, or ``FAILED`` with the names of the checks that failed."""
        return f"FAILED: {', '.join(self.failures)}" if self.failures else "passed"

    def number(self, check: str, key: str) -> Any:
        """Return a number of one check; None if it has none."""
        return self.outcomes[check].numbers.get(key) if check in self.outcomes else None

    def to_json(self) -> dict[str, Any]:
        """Return plain data; numbers that are not finite become strings, so that any JSON reader can read it."""
        checks = {
            name: {"verdict": outcome.verdict.value, "sentence": outcome.sentence, **outcome.numbers}
            for name, outcome in self.outcomes.items()
        }
        return plain(
            {
                "scheduler": self.scheduler,
                "options": self.options,
                "passed": self.passed,
                "checks": checks,
                "seconds": round(self.seconds, 2),
                "versions": self.versions,
            }
        )
