"""``python -m diffexp.train``."""

from diffexp.cli.train import main

if __name__ == "__main__":
    main()
