"""`python -m chexseg` is the same as `chexseg`."""

from chexseg.cli import main

if __name__ == "__main__":
    main()
