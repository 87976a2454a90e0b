"""`python -m tianti`."""

from tianti.cli import main

if __name__ == "__main__":
    main()
