"""Where things lie on disk."""

from pathlib import Path


def conf_dir() -> Path:
    """The configs: packaged inside the wheel, else the checkout's ``conf/`` beside the package."""
    package = Path(__file__).resolve().parent
    packaged = package / "conf"
    return packaged if packaged.is_dir() else package.parent / "conf"
