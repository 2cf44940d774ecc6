"""Start the product with a seeded bug: FAULT_BUG=name python -m tests.faults.launch serve ...

The bugs live in `bugs`, one function each that patches the product in this process; the product
itself knows nothing of them.
"""

import os

from app.cli import app
from tests.faults import bugs

if __name__ == "__main__":
    bug = os.environ.get("FAULT_BUG")
    if bug:
        bugs.BUGS[bug]()
    app()
