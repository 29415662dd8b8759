"""Certificates: is a scheduler implemented correctly?

    python -m diffexp.certify scheduler=mine

Exact models decide that in seconds. ``certify`` is the same from Python, ``diffexp.testing`` from pytest.
"""

# Imported on first use, so that the command reports a typing mistake before torch is imported.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from diffexp.certify.checks import CHECKS as CHECKS, certify as certify, run_check as run_check
    from diffexp.certify.outcome import Certificate as Certificate, Outcome as Outcome, Verdict as Verdict
    from diffexp.certify.subject import subject_of as subject_of

_MODULES = {
    **dict.fromkeys(("CHECKS", "certify", "run_check"), "checks"),
    **dict.fromkeys(("Certificate", "Outcome", "Verdict"), "outcome"),
    "subject_of": "subject",
}

__all__ = ["CHECKS", "Certificate", "Outcome", "Verdict", "certify", "run_check", "subject_of"]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'diffexp.certify' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(f"diffexp.certify.{_MODULES[name]}"), name)
