"""`python -m audit_plugin` is `audit-plugin`."""

from .cli import main

if __name__ == "__main__":
    main()
