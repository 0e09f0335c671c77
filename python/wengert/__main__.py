"""`python -m wengert`: train a classifier of handwritten digits and show what happened."""

import sys

from wengert.demo import main

if __name__ == "__main__":
    sys.exit(main())
