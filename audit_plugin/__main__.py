"""`python -m audit_plugin` is `audit-plugin`."""

import sys


def main() -> None:
    """Entry point of `audit-plugin`: an interrupt while the commands are imported is one sentence as well."""
    try:
        from .cli import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; run the same command again\n")
        sys.exit(130)
    except (ImportError, MemoryError, OSError, SystemError) as error:  # the commands cannot be imported
        from .store import plain_error

        if not (sentence := plain_error(error)):
            raise
        sys.stderr.write(f"error: {sentence}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
